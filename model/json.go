package model

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// The JSON reader is the project's own, for what it accepts is part of the
// replicated semantics: the next version of a library must not turn an event
// that one replica rejected into one that another learns. It is strict
// RFC 8259, and refuses what the RFC leaves open: keys that come twice,
// invalid UTF-8, halves of surrogate pairs, deep nesting.
//
// There are two sorts of trouble. A syntax error ends the reading, and the
// whole text is bad. A problem is noted with its place, and reading goes on:
// only the event that has it is bad.

// MaxDepth is how many arrays and objects a JSON text may have in each other,
// the outermost included.
const MaxDepth = 32

// Further limits of a JSON text.
const (
	maxKeys     = 256 // of one object; keys are compared with each other
	maxNumeral  = 400 // characters of a field's number; 1e308 in full has 309
	maxProblems = 64  // listed of one text, see report
	maxShownKey = 64  // bytes of a stranger's key in a Loc
)

// reader reads a JSON text once, from left to right, without allocating as
// long as it is good. Objects and arrays are read by
//
//	for r.object(); r.member(); { /* r.key(), then read the value */ }
//	for r.array(); r.element(); { /* read the value */ }
//
// The body must read exactly one value. After a syntax error every loop ends.
type reader struct {
	data []byte
	pos  int
	err  *Problem // the syntax error that ended the reading

	// open are the objects and arrays around the value being read, outermost
	// first: the way to it.
	open    []container
	keys    [][]byte // of the open objects, one after the other
	scratch []byte   // texts that had escapes; never moves, for they are views of it

	problems []Problem // of the event being read
	root     int       // how many containers are around that event
	reported int       // problems of the whole text
}

// container is an object or array that is being read.
type container struct {
	object bool
	size   int    // values begun so far; an array's index is size-1
	key    []byte // an object's present key
	keys   int    // where an object's keys begin in reader.keys
	kinds  uint64 // which kinds of key it has had, see distinct
}

func (r *reader) reset(data []byte) {
	r.data, r.pos, r.err = data, 0, nil
	r.open, r.keys, r.scratch = r.open[:0], r.keys[:0], r.scratch[:0]
	r.problems, r.root, r.reported = nil, 0, 0
	if cap(r.scratch) < len(data) {
		// A text is never longer than its source, so no append ever moves
		// what the views point at.
		r.scratch = make([]byte, 0, len(data))
	}
}

// fail records the syntax error; everything after it reads as the end.
func (r *reader) fail(expected string) {
	if r.err == nil {
		r.err = &Problem{
			Loc:  []any{r.pos},
			Msg:  fmt.Sprintf("Invalid JSON: expected %s at byte %d", expected, r.pos),
			Type: "json_invalid",
		}
	}
	r.pos = len(r.data)
}

// report notes a problem at a place. A text's first 64 are listed; past them,
// an event has its first one and then one that stands for its others, so that
// each bad event is known as bad and an answer stays small.
func (r *reader) report(loc []any, kind, msg string) {
	r.reported++
	if r.reported > maxProblems && len(r.problems) > 0 {
		if r.problems[len(r.problems)-1].Type == "too_many_problems" {
			return
		}
		loc, kind = place(r.open[:r.root]), "too_many_problems"
		msg = fmt.Sprintf("There are more problems; the first %d of a message are listed", maxProblems)
	}
	r.problems = append(r.problems, Problem{Loc: loc, Msg: msg, Type: kind})
}

// wrong reports a problem of the value being read.
func (r *reader) wrong(kind, msg string) { r.report(place(r.open), kind, msg) }

// missing reports a key that the value being read lacks.
func (r *reader) missing(key string) {
	r.report(append(place(r.open), key), "missing", "Field required")
}

// place is the way to a value: keys and indexes.
func place(open []container) []any {
	loc := make([]any, 0, len(open)+1)
	for i := range open {
		if open[i].object {
			loc = append(loc, shown(open[i].key))
		} else {
			loc = append(loc, open[i].size-1)
		}
	}
	return loc
}

// shown is a key as a Loc names it. A spec's own names fit; a stranger's may
// be as long as the message, and is cut.
func shown(key []byte) string {
	if len(key) <= maxShownKey {
		return string(key)
	}
	end := maxShownKey
	for !utf8.RuneStart(key[end]) {
		end--
	}
	return string(key[:end]) + "…"
}

// peek skips white space and returns the byte that begins the next token, or
// 0 at the end. A NUL in the text begins no token either.
func (r *reader) peek() byte {
	for r.pos < len(r.data) {
		switch b := r.data[r.pos]; b {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return b
		}
	}
	return 0
}

// end checks that nothing follows the value.
func (r *reader) end() {
	if r.peek(); r.pos < len(r.data) {
		r.fail("the end")
	}
}

// object enters an object, whose brace is next.
func (r *reader) object() { r.enter(container{object: true, keys: len(r.keys)}) }

// array enters an array, whose bracket is next.
func (r *reader) array() { r.enter(container{}) }

func (r *reader) enter(c container) {
	if len(r.open) == MaxDepth {
		r.fail(fmt.Sprintf("at most %d arrays and objects in each other", MaxDepth))
		return
	}
	r.pos++
	r.open = append(r.open, c)
}

// member steps to the next value of an object, past its key, and leaves the
// object at its end.
func (r *reader) member() bool {
	if !r.more('}') {
		return false
	}
	if r.peek() != '"' {
		r.fail("a key in double quotes")
		return false
	}
	key := r.text()
	if r.peek() != ':' {
		r.fail("a colon")
		return false
	}
	r.pos++
	c := &r.open[len(r.open)-1]
	c.key = key
	r.distinct(c)
	return true
}

// key is the key of the value being read. It is valid as long as the text.
func (r *reader) key() []byte { return r.open[len(r.open)-1].key }

// distinct reports a key that its object had before. An object with too many
// keys is reported once, and its further keys are not compared.
func (r *reader) distinct(c *container) {
	if c.size > maxKeys {
		if c.size == maxKeys+1 {
			r.report(place(r.open[:len(r.open)-1]), "too_many_keys", fmt.Sprintf("Object should have at most %d keys", maxKeys))
		}
		return
	}
	// Equal keys are of one kind, by length and last byte: mostly no earlier
	// key is, and then there is nothing to compare.
	kind := uint64(len(c.key))
	if kind > 0 {
		kind += uint64(c.key[kind-1]) * 7
	}
	kind = 1 << (kind % 64)
	if c.kinds&kind != 0 && r.had(c) {
		r.wrong("duplicate_key", "Key should be given once")
		return
	}
	c.kinds |= kind
	r.keys = append(r.keys, c.key)
}

func (r *reader) had(c *container) bool {
	for _, earlier := range r.keys[c.keys:] {
		if string(earlier) == string(c.key) {
			return true
		}
	}
	return false
}

// element steps to the next value of an array, and leaves it at its end.
func (r *reader) element() bool { return r.more(']') }

// more steps over the comma before the next value, or over the closing byte.
func (r *reader) more(closing byte) bool {
	if r.err != nil {
		return false
	}
	c := &r.open[len(r.open)-1]
	switch b := r.peek(); {
	case b == closing:
		r.leave(c)
		return false
	case c.size > 0 && b == ',':
		r.pos++
		if r.peek() == closing {
			r.fail("a value after the comma")
			return false
		}
	case c.size > 0:
		r.fail("a comma or " + strconv.QuoteRune(rune(closing)))
		return false
	}
	c.size++
	return true
}

func (r *reader) leave(c *container) {
	r.pos++
	if c.object {
		r.keys = r.keys[:c.keys]
	}
	r.open = r.open[:len(r.open)-1]
}

// skip reads a value that no one wants. It is checked all the same, keys that
// come twice included.
func (r *reader) skip() {
	switch b := r.peek(); {
	case b == '{':
		for r.object(); r.member(); {
			r.skip()
		}
	case b == '[':
		for r.array(); r.element(); {
			r.skip()
		}
	case b == '"':
		r.text()
	case beginsNumber(b):
		r.numeral()
	case b == 't':
		r.literal("true")
	case b == 'f':
		r.literal("false")
	case b == 'n':
		r.literal("null")
	default:
		r.fail("a value")
	}
}

// literal reads a word whose first byte is next.
func (r *reader) literal(word string) {
	if len(r.data)-r.pos < len(word) || string(r.data[r.pos:r.pos+len(word)]) != word {
		r.fail(word)
		return
	}
	r.pos += len(word)
}

func beginsNumber(b byte) bool { return b == '-' || '0' <= b && b <= '9' }

// numeral reads a number's text, which is next.
func (r *reader) numeral() []byte {
	start := r.pos
	if r.data[r.pos] == '-' {
		r.pos++
	}
	if r.at() == '0' {
		r.pos++ // and no digit may follow
	} else {
		r.digits()
	}
	if r.at() == '.' {
		r.pos++
		r.digits()
	}
	if r.at()|0x20 == 'e' {
		r.pos++
		if sign := r.at(); sign == '+' || sign == '-' {
			r.pos++
		}
		r.digits()
	}
	return r.data[start:r.pos]
}

// powers are powers of ten. A double holds each of them exactly.
var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14}

// quick is the double nearest to a short numeral without exponent. Up to 15
// digits are an exact double too, so the one division rounds once, as
// strconv.ParseFloat does, at a third of the time.
func quick(numeral []byte) (v float64, ok bool) {
	if len(numeral) > len(powers) {
		return 0, false
	}
	digits, decimals := int64(0), 0
	for i, b := range numeral {
		switch {
		case b-'0' <= 9:
			digits = digits*10 + int64(b-'0')
		case b == '.':
			decimals = len(numeral) - 1 - i
		case b != '-':
			return 0, false
		}
	}
	if v = float64(digits) / powers[decimals]; numeral[0] == '-' {
		v = -v
	}
	return v, true
}

// at is the byte at the position, 0 at the end.
func (r *reader) at() byte {
	if r.pos < len(r.data) {
		return r.data[r.pos]
	}
	return 0
}

// digits reads one digit or more.
func (r *reader) digits() {
	start := r.pos
	for r.pos < len(r.data) && r.data[r.pos]-'0' <= 9 {
		r.pos++
	}
	if r.pos == start {
		r.fail("a digit")
	}
}

// plain tells the bytes that stand for themselves in a string.
var plain = func() (table [256]bool) {
	for b := ' '; b < utf8.RuneSelf; b++ {
		table[b] = b != '"' && b != '\\'
	}
	return table
}()

// text reads a string, whose quote is next, and returns it without its
// escapes: a view of the input or of the scratch.
func (r *reader) text() []byte {
	start := r.pos + 1
	for i := start; i < len(r.data); i++ {
		b := r.data[i]
		if plain[b] {
			continue
		}
		r.pos = i
		switch b {
		case '"':
			r.pos++
			return r.data[start:i:i]
		case '\\':
			return r.escaped(start)
		}
		r.rune()
		i = r.pos - 1
	}
	r.pos = len(r.data)
	r.fail("the end of a string")
	return nil
}

// rune steps over a character that is not plain ASCII.
func (r *reader) rune() {
	if r.data[r.pos] < ' ' {
		r.fail("no control character in a string")
		return
	}
	c, size := utf8.DecodeRune(r.data[r.pos:])
	if c == utf8.RuneError && size == 1 {
		r.fail("UTF-8")
		return
	}
	r.pos += size
}

// escaped reads the rest of a string from its first escape on.
func (r *reader) escaped(start int) []byte {
	from := len(r.scratch)
	r.scratch = append(r.scratch, r.data[start:r.pos]...)
	for r.pos < len(r.data) {
		switch b := r.data[r.pos]; {
		case plain[b]:
			r.scratch = append(r.scratch, b)
			r.pos++
		case b == '"':
			r.pos++
			return r.scratch[from:len(r.scratch):len(r.scratch)]
		case b == '\\':
			r.escape()
		default:
			at := r.pos
			if r.rune(); r.err == nil {
				r.scratch = append(r.scratch, r.data[at:r.pos]...)
			}
		}
	}
	r.fail("the end of a string")
	return nil
}

// escape reads a backslash and what it stands for.
func (r *reader) escape() {
	var plain byte
	if r.pos+1 < len(r.data) {
		plain = r.data[r.pos+1]
	}
	switch plain {
	case 'u':
		r.unicode()
		return
	case '"', '\\', '/':
	case 'b':
		plain = '\b'
	case 'f':
		plain = '\f'
	case 'n':
		plain = '\n'
	case 'r':
		plain = '\r'
	case 't':
		plain = '\t'
	default:
		r.fail(`an escape: \" \\ \/ \b \f \n \r \t or \u`)
		return
	}
	r.scratch = append(r.scratch, plain)
	r.pos += 2
}

// unicode reads \uXXXX, or two of them that are one character together.
func (r *reader) unicode() {
	c, ok := r.hex(r.pos)
	size := len(`\uXXXX`)
	if ok && 0xd800 <= c && c < 0xdc00 {
		low, paired := r.hex(r.pos + size)
		if ok = paired && 0xdc00 <= low && low < 0xe000; ok {
			c, size = 0x10000+(c-0xd800)<<10+(low-0xdc00), 2*size
		}
	} else if 0xdc00 <= c && c < 0xe000 {
		ok = false
	}
	if !ok {
		r.fail("four hexadecimal digits of a whole character")
		return
	}
	r.scratch = utf8.AppendRune(r.scratch, c)
	r.pos += size
}

// hex reads the \uXXXX at a position.
func (r *reader) hex(at int) (c rune, ok bool) {
	if at+6 > len(r.data) || r.data[at] != '\\' || r.data[at+1] != 'u' {
		return 0, false
	}
	for _, b := range r.data[at+2 : at+6] {
		switch {
		case '0' <= b && b <= '9':
			c = c<<4 | rune(b-'0')
		case 'a' <= b && b <= 'f':
			c = c<<4 | rune(b-'a'+10)
		case 'A' <= b && b <= 'F':
			c = c<<4 | rune(b-'A'+10)
		default:
			return 0, false
		}
	}
	return c, true
}

// appendText appends a text as a JSON string. It escapes what JSON demands
// and nothing else, so that the bytes never depend on a library. What is not
// UTF-8 stays as it is, to be refused by the reader rather than changed.
func appendText(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(text) {
		switch b := text[i]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			dst = append(dst, b)
		}
	}
	return append(dst, '"')
}
