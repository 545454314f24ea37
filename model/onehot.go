package model

import (
	"bytes"
	"slices"
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

	keys  vocab    // the dummies' keys in learning order
	since []uint64 // by key: the learn event from which on it was not dropped, 0 if it still is
	min   int32    // the smallest key's place; derived
	n     uint64   // events learned
}

type oneHotColumn struct {
	in     int     // the frame's category
	vocab  *vocab  // of that column
	prefix string  // "column_"
	places []int32 // by vocabulary number: the key's place in keys, or unknown; derived
	none   int32   // the place of prefix+"None", or unknown; derived
	key    []byte  // scratch
}

func (t *oneHotEncoder) learn(f *frame) {
	t.n++
	for i := range t.columns {
		col := &t.columns[i]
		if x := f.cats[col.in]; col.place(x) == unknown {
			t.add(col, x.id)
		}
	}
}

// add learns a new key. A key is dropped for as long as it is the smallest,
// and once it is not, it never is again: the smallest only gets smaller.
func (t *oneHotEncoder) add(col *oneHotColumn, id int32) {
	text := noneText
	if id != null {
		text = col.vocab.texts[id]
	}
	place := t.keys.add(col.prefix + text)
	col.remember(place, id, text)
	t.since = append(t.since, t.n)
	if t.min == unknown {
		t.min = place
	} else if t.keys.texts[place] < t.keys.texts[t.min] {
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
			out.fresh = append(out.fresh, col.freshKey(x))
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
	for i, key := range out.fresh {
		if least < 0 || bytes.Compare(key, out.fresh[least]) < 0 {
			least = i
		}
	}
	if least >= 0 && (t.min == unknown || string(out.fresh[least]) < t.keys.texts[t.min]) {
		out.fresh = slices.Delete(out.fresh, least, least+1)
	} else if i, found := slices.BinarySearch(out.known, t.min); found {
		out.known = slices.Delete(out.known, i, i+1)
	}
}

// terms is how many keys the classifier has ever been shown: all but the one
// that is still dropped.
func (t *oneHotEncoder) terms() int {
	if t.dropFirst && len(t.keys.texts) > 0 {
		return len(t.keys.texts) - 1
	}
	return len(t.keys.texts)
}

// code reads after the columns' vocabularies, which it refers to.
func (t *oneHotEncoder) code(c *coder) {
	c.u64(&t.n)
	t.keys.code(c)
	c.u64s(&t.since)
	if c.reading {
		t.rebuild(c)
	}
}

// rebuild derives the places and the smallest key from the keys.
func (t *oneHotEncoder) rebuild(c *coder) {
	if len(t.since) != len(t.keys.texts) {
		c.fail()
		return
	}
	t.min = unknown
	for place, key := range t.keys.texts {
		if t.min == unknown || key < t.keys.texts[t.min] {
			t.min = int32(place)
		}
	}
	for i := range t.columns {
		col := &t.columns[i]
		col.places, col.none = nil, t.keys.find([]byte(col.prefix+noneText))
		for id, text := range col.vocab.texts {
			if place := t.keys.find([]byte(col.prefix + text)); place != unknown {
				col.remember(place, int32(id), text)
			}
		}
	}
}
