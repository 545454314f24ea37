package model

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// The JSON reader is the project's own, for what it accepts is part of the
// replicated semantics: a library's next version must not turn an event that
// one replica rejected into one that another learns. It follows RFC 8259
// strictly, and refuses duplicate keys, invalid UTF-8 and lone surrogates.

const (
	maxDepth   = 32  // of nested values
	maxKeys    = 256 // of one object
	maxDigits  = 400 // characters of a number
	maxProblem = 64  // problems reported of one message
)

// reader scans a JSON text once, from left to right.
type reader struct {
	data    []byte
	pos     int
	depth   int
	scratch []byte   // texts that had escapes; grows, so that views stay valid
	keys    [][]byte // the keys of the open objects, innermost last
	err     *Problem // the syntax error that ended the reading
}

func (r *reader) reset(data []byte) {
	r.data, r.pos, r.depth, r.err = data, 0, 0, nil
	r.scratch, r.keys = r.scratch[:0], r.keys[:0]
	if cap(r.scratch) < len(data) {
		// Unescaped text is never longer than its source, so nothing
		// appended later moves what a view points at.
		r.scratch = make([]byte, 0, len(data))
	}
}

// fail records a syntax error; everything after it reads as the end.
func (r *reader) fail(msg string) {
	if r.err == nil {
		r.err = &Problem{Loc: []any{r.pos}, Msg: fmt.Sprintf("Invalid JSON: %s at byte %d", msg, r.pos), Type: "json_invalid"}
	}
	r.pos = len(r.data)
}

// next skips white space and returns the byte that begins the next token, 0
// at the end.
func (r *reader) next() byte {
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

// take consumes a byte that must be next.
func (r *reader) take(b byte) bool {
	if r.next() != b {
		r.fail("expected " + strconv.QuoteRune(rune(b)))
		return false
	}
	r.pos++
	return true
}

// end checks that nothing follows the value.
func (r *reader) end() {
	if r.next() != 0 || r.pos < len(r.data) {
		r.fail("expected nothing after the value")
	}
}

// more begins or continues a list that closes with a byte: false once closed.
func (r *reader) more(first bool, closing byte) bool {
	if r.next() == closing {
		r.pos++
		return false
	}
	if !first && !r.take(',') {
		return false
	}
	if !first && r.next() == closing {
		r.fail("expected a value after the comma")
	}
	return r.err == nil
}

func (r *reader) enter() bool {
	if r.depth++; r.depth > maxDepth {
		r.fail(fmt.Sprintf("expected at most %d nested values", maxDepth))
		return false
	}
	r.pos++
	return true
}

// object reads an object and calls field at each of its values, which it
// must consume. It returns the first key that came twice, if any did; field
// is called for it all the same.
func (r *reader) object(field func(key []byte)) (twice []byte) {
	if !r.enter() {
		return nil
	}
	base := len(r.keys)
	for first := true; r.more(first, '}'); first = false {
		key := r.text()
		if !r.take(':') {
			break
		}
		for _, other := range r.keys[base:] {
			if twice == nil && string(other) == string(key) {
				twice = key
			}
		}
		if len(r.keys)-base == maxKeys {
			r.fail(fmt.Sprintf("expected at most %d keys in an object", maxKeys))
			break
		}
		r.keys = append(r.keys, key)
		field(key)
		if r.err != nil {
			break
		}
	}
	r.keys = r.keys[:base]
	r.depth--
	return twice
}

// skip reads a value that nobody wants. It returns the first key that came
// twice in any object within.
func (r *reader) skip() (twice []byte) {
	switch b := r.next(); {
	case b == '{':
		var within []byte
		twice = r.object(func([]byte) {
			if found := r.skip(); within == nil {
				within = found
			}
		})
		if twice == nil {
			twice = within
		}
	case b == '[':
		if !r.enter() {
			return nil
		}
		for first := true; r.more(first, ']'); first = false {
			if found := r.skip(); twice == nil {
				twice = found
			}
		}
		r.depth--
	case b == '"':
		r.text()
	case b == '-' || '0' <= b && b <= '9':
		r.digits()
	case b == 't':
		r.literal("true")
	case b == 'f':
		r.literal("false")
	case b == 'n':
		r.literal("null")
	default:
		r.fail("expected a value")
	}
	return twice
}

func (r *reader) literal(word string) {
	if len(r.data)-r.pos < len(word) || string(r.data[r.pos:r.pos+len(word)]) != word {
		r.fail("expected " + word)
		return
	}
	r.pos += len(word)
}

// number reads a number; ok is false if no double is near it.
func (r *reader) number() (v float64, ok bool) {
	digits := r.digits()
	if r.err != nil {
		return 0, false
	}
	// ParseFloat keeps nothing of its argument, so a view of the input spares
	// a copy. It rounds to the nearest double on every CPU.
	v, err := strconv.ParseFloat(unsafe.String(&digits[0], len(digits)), 64)
	if err != nil || math.IsInf(v, 0) {
		return 0, false
	}
	return v + 0, true // -0 is 0
}

// digits reads a number's text.
func (r *reader) digits() []byte {
	start := r.pos
	at := func() byte {
		if r.pos < len(r.data) {
			return r.data[r.pos]
		}
		return 0
	}
	run := func() {
		if b := at(); b < '0' || b > '9' {
			r.fail("expected a digit")
			return
		}
		for b := at(); '0' <= b && b <= '9'; b = at() {
			r.pos++
		}
	}
	if at() == '-' {
		r.pos++
	}
	if at() == '0' {
		r.pos++
	} else {
		run()
	}
	if at() == '.' {
		r.pos++
		run()
	}
	if b := at(); b == 'e' || b == 'E' {
		r.pos++
		if b := at(); b == '+' || b == '-' {
			r.pos++
		}
		run()
	}
	if r.err == nil && r.pos-start > maxDigits {
		r.pos = start
		r.fail(fmt.Sprintf("expected a number of at most %d characters", maxDigits))
	}
	return r.data[start:r.pos]
}

// text reads a string and returns it without its escapes: a view of the
// input, or of the scratch.
func (r *reader) text() []byte {
	if !r.take('"') {
		return nil
	}
	start := r.pos
	for r.pos < len(r.data) {
		switch b := r.data[r.pos]; {
		case b == '"':
			r.pos++
			return r.data[start : r.pos-1 : r.pos-1]
		case b == '\\':
			return r.escaped(start)
		default:
			r.char(b)
		}
	}
	r.fail("expected the end of a string")
	return nil
}

// char steps over one unescaped character.
func (r *reader) char(b byte) {
	switch {
	case b < ' ':
		r.fail("expected no control character in a string")
	case b < utf8.RuneSelf:
		r.pos++
	default:
		c, size := utf8.DecodeRune(r.data[r.pos:])
		if c == utf8.RuneError && size == 1 {
			r.fail("expected UTF-8")
			return
		}
		r.pos += size
	}
}

// escaped reads the rest of a string that has an escape.
func (r *reader) escaped(start int) []byte {
	from := len(r.scratch)
	r.scratch = append(r.scratch, r.data[start:r.pos]...)
	for r.pos < len(r.data) {
		switch b := r.data[r.pos]; {
		case b == '"':
			r.pos++
			return r.scratch[from:len(r.scratch):len(r.scratch)]
		case b == '\\':
			r.escape()
		default:
			at := r.pos
			r.char(b)
			r.scratch = append(r.scratch, r.data[at:r.pos]...)
		}
		if r.err != nil {
			return nil
		}
	}
	r.fail("expected the end of a string")
	return nil
}

// simple are the escapes of one letter, by pairs.
const simple = "\"\"\\\\//b\bf\fn\nr\rt\t"

func (r *reader) escape() {
	if r.pos+1 >= len(r.data) {
		r.fail("expected an escape")
		return
	}
	if r.data[r.pos+1] == 'u' {
		r.unicode()
		return
	}
	for i := 0; i < len(simple); i += 2 {
		if simple[i] == r.data[r.pos+1] {
			r.scratch = append(r.scratch, simple[i+1])
			r.pos += 2
			return
		}
	}
	r.fail("expected an escape")
}

// unicode reads \uXXXX, and its second half where the first is a surrogate.
func (r *reader) unicode() {
	c, ok := r.hex(r.pos)
	if ok && 0xd800 <= c && c < 0xdc00 {
		if low, paired := r.hex(r.pos + 6); paired && 0xdc00 <= low && low < 0xe000 {
			r.scratch = utf8.AppendRune(r.scratch, 0x10000+(c-0xd800)<<10+(low-0xdc00))
			r.pos += 12
			return
		}
	}
	if !ok || 0xd800 <= c && c < 0xe000 {
		r.fail("expected an escape of a whole character")
		return
	}
	r.scratch = utf8.AppendRune(r.scratch, c)
	r.pos += 6
}

// hex reads the \uXXXX at a position.
func (r *reader) hex(at int) (rune, bool) {
	if at+6 > len(r.data) || r.data[at] != '\\' || r.data[at+1] != 'u' {
		return 0, false
	}
	var c rune
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
