package model

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// noneText is how River, through Python, spells a missing value in a key. A
// null and the text "None" are therefore one and the same dummy.
const noneText = "None"

// oneHotEncoder is River's OneHotEncoder. It makes a dummy `column_value` for
// every value learned, in learning order, plus one for the event's own value.
// With drop_first the smallest key present is left out, compared by code
// point (which for UTF-8 is byte order), chosen anew at each event.
//
// Source: river.preprocessing.OneHotEncoder.
type oneHotEncoder struct {
	columns   []oneHotColumn
	out       int // the frame's dummies
	dropFirst bool

	keys  []oneHotKey // in learning order
	since []uint64    // by key: the learn event from which on it was not dropped, 0 if it still is
	min   int32       // the smallest key's place; derived
	n     uint64      // events learned

	// ambiguous: a key's text alone does not tell its column, for with one
	// column named job and another job_partner both can have job_partner_x.
	// Then the columns of the keys are part of the state.
	ambiguous bool
}

// oneHotKey is a dummy. Its column and value tell it from others; its text,
// which is River's, gives the order in which the first one is dropped.
type oneHotKey struct {
	text   string // "column_value"
	column int32
}

// before reports whether a key is dropped rather than another: by its text,
// and of equal texts by its column.
func (k oneHotKey) before(text string, column int32) bool {
	return k.text < text || k.text == text && k.column < column
}

type oneHotColumn struct {
	in     int    // the frame's category
	vocab  *vocab // of that column
	name   string
	prefix string  // "column_"
	places []int32 // by vocabulary number: the key's place in keys, or unknown; derived
	none   int32   // the place of prefix+"None", or unknown; derived
	key    []byte  // scratch
	quoted bool    // another feature of the pipeline can have the same text
}

func (t *oneHotEncoder) learn(f *frame) {
	t.n++
	for i := range t.columns {
		col := &t.columns[i]
		if x := f.cats[col.in]; col.place(x) == unknown {
			t.add(int32(i), x.id)
		}
	}
}

// add learns a new key. A key is dropped for as long as it is the smallest,
// and once it is not, it never is again: the smallest only gets smaller.
func (t *oneHotEncoder) add(column, id int32) {
	col, text := &t.columns[column], noneText
	if id != null {
		text = col.vocab.texts[id]
	}
	place := int32(len(t.keys))
	t.keys = append(t.keys, oneHotKey{col.prefix + text, column})
	col.remember(place, id, text)
	t.since = append(t.since, t.n)
	if t.min == unknown {
		t.min = place
	} else if least := t.keys[t.min]; t.keys[place].before(least.text, least.column) {
		if t.dropFirst {
			t.since[t.min] = t.n
		}
		t.min = place
	}
	if t.dropFirst && t.min == place {
		t.since[place] = 0
	}
}

func (col *oneHotColumn) remember(place, id int32, text string) {
	if text == noneText {
		col.none = place
	}
	if id == null {
		return
	}
	for int(id) >= len(col.places) {
		col.places = append(col.places, unknown)
	}
	col.places[id] = place
}

// place finds the key of a value, or unknown.
func (col *oneHotColumn) place(x category) int32 {
	switch {
	case x.id >= 0 && int(x.id) < len(col.places) && col.places[x.id] != unknown:
		return col.places[x.id]
	case x.id == null, x.id >= 0 && col.vocab.texts[x.id] == noneText, x.id == unknown && string(x.text) == noneText:
		return col.none
	}
	return unknown
}

func (t *oneHotEncoder) transform(f *frame) {
	out := &f.dummies[t.out]
	out.known, out.fresh = out.known[:0], out.fresh[:0]
	for i := range t.columns {
		col := &t.columns[i]
		x := f.cats[col.in]
		if place := col.place(x); place != unknown {
			out.known = append(out.known, place)
		} else {
			out.fresh = append(out.fresh, freshDummy{col.freshKey(x), int32(i)})
		}
	}
	slices.Sort(out.known)
	if t.dropFirst {
		t.drop(out)
	}
}

// freshKey makes the key of a value that was never learned.
func (col *oneHotColumn) freshKey(x category) []byte {
	col.key = append(col.key[:0], col.prefix...)
	switch {
	case x.id == null:
		col.key = append(col.key, noneText...)
	case x.id >= 0:
		col.key = append(col.key, col.vocab.texts[x.id]...)
	default:
		col.key = append(col.key, x.text...)
	}
	return col.key
}

// drop leaves out the smallest key of the event: a fresh one if that is
// smaller than all learned ones, else the smallest learned one.
func (t *oneHotEncoder) drop(out *dummies) {
	least := -1
	for i, d := range out.fresh {
		if least < 0 || bytes.Compare(d.key, out.fresh[least].key) < 0 {
			least = i
		}
	}
	if least >= 0 && t.smallest(&out.fresh[least]) {
		out.fresh = slices.Delete(out.fresh, least, least+1)
	} else if i, found := slices.BinarySearch(out.known, t.min); found {
		out.known = slices.Delete(out.known, i, i+1)
	}
}

// smallest reports whether a fresh key is smaller than all learned ones.
func (t *oneHotEncoder) smallest(d *freshDummy) bool {
	if t.min == unknown {
		return true
	}
	k := &t.keys[t.min]
	return string(d.key) < k.text || string(d.key) == k.text && d.column < k.column
}

// feature names a key for people: River's text, or where another feature can
// have the same one, column and value apart.
func (t *oneHotEncoder) feature(text string, column int32) string {
	col := &t.columns[column]
	if !col.quoted {
		return text
	}
	name := onLine(col.name)
	if strings.ContainsAny(name, `="`) && name == col.name {
		name = strconv.Quote(name)
	}
	return name + "=" + strconv.Quote(text[len(col.prefix):])
}

// terms is how many keys the classifier has ever been shown: all but the one
// that is still dropped.
func (t *oneHotEncoder) terms() int {
	if t.dropFirst && len(t.keys) > 0 {
		return len(t.keys) - 1
	}
	return len(t.keys)
}

// code reads after the columns' vocabularies, which it refers to.
func (t *oneHotEncoder) code(c *coder) {
	c.u64(&t.n)
	n := c.length(len(t.keys), 8)
	if c.reading {
		t.keys = make([]oneHotKey, n)
	}
	for i := range t.keys {
		c.text(&t.keys[i].text)
	}
	c.u64s(&t.since)
	for i := range t.keys {
		if k := &t.keys[i]; t.ambiguous {
			c.i32(&k.column)
		} else if c.reading {
			k.column = t.columnOf(k.text)
		}
	}
	if c.reading {
		t.rebuild(c)
	}
}

// columnOf is the only column that a key can be of.
func (t *oneHotEncoder) columnOf(key string) int32 {
	return int32(slices.IndexFunc(t.columns, func(col oneHotColumn) bool { return strings.HasPrefix(key, col.prefix) }))
}

// rebuild derives the places and the smallest key from the keys.
func (t *oneHotEncoder) rebuild(c *coder) {
	if len(t.since) != len(t.keys) {
		c.fail()
		return
	}
	for i := range t.columns {
		t.columns[i].places, t.columns[i].none = nil, unknown
	}
	t.min = unknown
	seen := make(map[oneHotKey]bool, len(t.keys))
	for place, k := range t.keys {
		if k.column < 0 || int(k.column) >= len(t.columns) || !strings.HasPrefix(k.text, t.columns[k.column].prefix) || seen[k] {
			c.fail()
			return
		}
		seen[k] = true
		if t.min == unknown || k.before(t.keys[t.min].text, t.keys[t.min].column) {
			t.min = int32(place)
		}
		col := &t.columns[k.column]
		value := k.text[len(col.prefix):]
		id := col.vocab.find([]byte(value))
		if id == unknown {
			id = null
		}
		col.remember(int32(place), id, value)
	}
}
