package model

import "bytes"

// Most input is spelled plainly: the spec's keys, each once, and no other,
// texts without escapes, short decimals, at most one space after a comma or a
// colon. Such input is read here in a third of the time. For any other these
// functions say no, and the strict reader, which alone can tell what is wrong,
// reads it from the same place. To accept here what that refuses, or to read
// another value, would change the replicated semantics: a fuzzed test compares
// the two.

// plainKeys are the keys with their colons, as they are mostly spelled.
type plainKeys struct {
	inputs                [][]byte // nil: a name needs escapes, nothing is plain
	attributes, label, id []byte

	order []int // of the inputs in the last object: the next one's is mostly the same
}

func newPlainKeys(s *Spec) (k plainKeys) {
	quoted := func(name string) []byte {
		if !isPlain(name) {
			return nil
		}
		return append(append([]byte{'"'}, name...), `":`...)
	}
	k.attributes, k.label, k.id = quoted("attributes"), quoted(s.Label.Name), quoted("id")
	if k.label == nil || s.Label.Name == "attributes" || s.Label.Name == "id" {
		return plainKeys{}
	}
	for i := range s.Inputs {
		key := quoted(s.Inputs[i].Name)
		if key == nil {
			return plainKeys{}
		}
		k.inputs, k.order = append(k.inputs, key), append(k.order, i)
	}
	return k
}

func isPlain(text string) bool {
	for i := range len(text) {
		if !plain[text[i]] {
			return false
		}
	}
	return true
}

// plainEvent reads a learn event that is spelled plainly and good.
func (d *Decoder) plainEvent(e *Event, row Row) bool {
	p := plainReader{data: d.reader.data, pos: d.reader.pos}
	if d.plain.inputs == nil || !p.byte('{') || !p.token(d.plain.attributes) || !d.plainAttributes(&p, row) {
		return false
	}
	if !p.comma() || !p.token(d.plain.label) || !p.value(&d.spec.Label, &e.Label) {
		return false
	}
	if !p.byte('}') {
		if !p.comma() || !p.token(d.plain.id) || !p.text(&e.ID) || len(e.ID) == 0 || len(e.ID) > maxID || !p.byte('}') {
			return false
		}
	}
	d.reader.pos = p.pos
	return true
}

// plainRow reads an object of attributes that is spelled plainly and good.
func (d *Decoder) plainRow(row Row) bool {
	p := plainReader{data: d.reader.data, pos: d.reader.pos}
	if d.plain.inputs == nil || !d.plainAttributes(&p, row) {
		return false
	}
	d.reader.pos = p.pos
	return true
}

func (d *Decoder) plainAttributes(p *plainReader, row Row) bool {
	if !p.byte('{') {
		return false
	}
	clear(d.seen)
	for place := range d.plain.order {
		if place > 0 && !p.comma() {
			return false
		}
		i, known := d.plainKey(p, place)
		if !known || d.seen[i] {
			return false
		}
		d.seen[i] = true
		if !p.value(&d.spec.Inputs[i], &row[i]) {
			return false
		}
	}
	return p.byte('}')
}

// plainKey reads the key of an input.
func (d *Decoder) plainKey(p *plainReader, place int) (input int, known bool) {
	if i := d.plain.order[place]; p.token(d.plain.inputs[i]) {
		return i, true
	}
	for i, key := range d.plain.inputs {
		if p.token(key) {
			d.plain.order[place] = i
			return i, true
		}
	}
	return 0, false
}

// plainReader is at a place in a text. Its functions say whether that is next
// which they read.
type plainReader struct {
	data []byte
	pos  int
}

func (p *plainReader) byte(b byte) bool {
	if p.pos < len(p.data) && p.data[p.pos] == b {
		p.pos++
		return true
	}
	return false
}

func (p *plainReader) space() {
	if p.pos < len(p.data) && p.data[p.pos] == ' ' {
		p.pos++
	}
}

func (p *plainReader) comma() bool {
	if !p.byte(',') {
		return false
	}
	p.space()
	return true
}

func (p *plainReader) token(token []byte) bool {
	if !bytes.HasPrefix(p.data[p.pos:], token) {
		return false
	}
	p.pos += len(token)
	p.space()
	return true
}

// value reads a good value of a field.
func (p *plainReader) value(f *Field, v *Value) bool {
	switch {
	case f.Nullable && p.word("null"):
		v.Null = true
		return true
	case f.Type == Category:
		return p.text(&v.Text) && len(v.Text) <= f.MaxBytes && (f.Values == nil || f.takes(v.Text))
	case f.Type == Text:
		return p.text(&v.Text) && len(v.Text) <= f.MaxBytes
	case f.Type == Number:
		return p.number(&v.Num) && v.Num >= f.Min && v.Num <= f.Max
	case f.Type == Timestamp:
		return false
	case p.word("true"):
		v.Num = 1
		return true
	default:
		return p.word("false")
	}
}

// word reads one of JSON's words. What follows it is for the caller to check:
// a letter is no comma.
func (p *plainReader) word(word string) bool {
	if p.pos+len(word) > len(p.data) || string(p.data[p.pos:p.pos+len(word)]) != word {
		return false
	}
	p.pos += len(word)
	return true
}

func (p *plainReader) text(text *[]byte) bool {
	if !p.byte('"') {
		return false
	}
	start := p.pos
	for i := start; i < len(p.data); i++ {
		if !plain[p.data[i]] {
			*text, p.pos = p.data[start:i:i], i+1
			return p.data[i] == '"'
		}
	}
	return false
}

// number reads a decimal as quick does. What follows it is for the caller to
// check: an exponent is no comma.
func (p *plainReader) number(v *float64) bool {
	start := p.pos
	negative := p.byte('-')
	whole := p.pos
	n := p.digits(0)
	if p.pos == whole || p.data[whole] == '0' && p.pos > whole+1 {
		return false
	}
	decimals := 0
	if p.byte('.') {
		point := p.pos
		n = p.digits(n)
		if decimals = p.pos - point; decimals == 0 {
			return false
		}
	}
	if p.pos-start > len(powers) {
		return false
	}
	if *v = float64(n) / powers[decimals]; negative && n != 0 {
		*v = -*v
	}
	return true
}

// digits reads digits as what follows n. Of more than quick takes, which no
// int64 may hold, the number is not used.
func (p *plainReader) digits(n int64) int64 {
	for p.pos < len(p.data) && p.data[p.pos]-'0' <= 9 {
		n = n*10 + int64(p.data[p.pos]-'0')
		p.pos++
	}
	return n
}
