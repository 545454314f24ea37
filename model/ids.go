package model

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"lockstep/model/river"
)

// Answer is what the fold said of an event when it was learned. A repeat of
// its id gets the same answer again.
type Answer struct {
	Seq       uint64 // the message's stream sequence
	Index     uint64 // the event's place in the message
	Learned   uint64 // events learned so far, this one included
	Label     Target
	Predicted Target // what was predicted before it was learned
	Known     bool   // false: nothing had been learned, Predicted is empty
}

// idKey and payload are the first 16 bytes of SHA-256 sums: an id can be
// guessed, but neither can be made to collide with a reasonable effort.
type (
	idKey   [16]byte
	payload [16]byte
)

// window remembers the last size ids that were learned, in a ring, and what
// was said of each.
type window struct {
	size    int
	next    uint64 // ids ever remembered; the next one's place is next % size
	entries []idEntry
	places  map[idKey]int32 // looked up, never ranged over; derived
	changed []bool          // by page: written since its digest was taken
}

type idEntry struct {
	key                 idKey
	payload             payload
	seq, index, learned uint64
	label, predicted    told
}

// told is a label or a prediction of one: of a class its number, or none; of a
// number the bits of the double.
type told uint64

func toldClass(class int) told { return told(uint32(int32(class))) }

func toldNumber(v float64) told { return told(math.Float64bits(v)) }

func (s told) class() int { return int(int32(uint32(s))) }

// among reports whether it is a class from least up to labels.
func (s told) among(least, labels int) bool {
	return s <= math.MaxUint32 && s.class() >= least && s.class() < labels
}

func (s told) number() float64 { return math.Float64frombits(uint64(s)) }

// idPage is how many entries of the ring share a segment of the digest.
const idPage = 1024

func newWindow(size int) window {
	w := window{size: size, places: map[idKey]int32{}, changed: make([]bool, (size+idPage-1)/idPage)}
	for i := range w.changed {
		w.changed[i] = true // not hashed yet
	}
	return w
}

func (w *window) find(key idKey) (*idEntry, bool) {
	place, ok := w.places[key]
	if !ok {
		return nil, false
	}
	return &w.entries[place], true
}

func (w *window) remember(e idEntry) {
	if w.size == 0 {
		return
	}
	place := int(w.next % uint64(w.size))
	w.next++
	if place < len(w.entries) {
		delete(w.places, w.entries[place].key)
		w.entries[place] = e
	} else {
		w.entries = append(w.entries, e)
	}
	w.places[e.key] = int32(place)
	w.changed[place/idPage] = true
}

// page returns the entries of one segment.
func (w *window) page(i int) []idEntry {
	from := min(i*idPage, len(w.entries))
	return w.entries[from:min(from+idPage, len(w.entries))]
}

// head codes how full the ring is; the pages follow it.
func (w *window) head(c *river.State) {
	c.U64(&w.next)
	if !c.Reading() {
		return
	}
	w.entries = make([]idEntry, min(w.next, uint64(w.size)))
	w.places = make(map[idKey]int32, len(w.entries))
}

func (w *window) codePage(c *river.State, i int) {
	page := w.page(i)
	for j := range page {
		e := &page[j]
		c.Fixed(e.key[:])
		c.Fixed(e.payload[:])
		c.U64(&e.seq)
		c.U64(&e.index)
		c.U64(&e.learned)
		c.U64((*uint64)(&e.label))
		c.U64((*uint64)(&e.predicted))
		if c.Reading() && c.Err() == nil {
			w.places[e.key] = int32(i*idPage + j)
		}
	}
}

// hasher makes the keys of ids and events; it reuses its buffer.
type hasher struct{ buf []byte }

// key names an event: by its own id, or by its message's id and its index.
// The two kinds never meet, and id and index are never joined into one text.
// An event without either has no key.
func (h *hasher) key(messageID string, index int, own []byte) (idKey, bool) {
	switch {
	case own != nil:
		h.buf = append(append(h.buf[:0], 1), own...)
	case messageID != "":
		h.buf = binary.LittleEndian.AppendUint64(append(h.buf[:0], 0), uint64(index))
		h.buf = append(h.buf, messageID...)
	default:
		return idKey{}, false
	}
	sum := sha256.Sum256(h.buf)
	return idKey(sum[:16]), true
}

// payload hashes what an event says, not how its JSON was spelled.
func (h *hasher) payload(s *Spec, e *Event) payload {
	h.buf = h.buf[:0]
	for i := range s.Inputs {
		switch v := &e.Row[i]; {
		case v.Null:
			h.buf = append(h.buf, 0)
		case s.Inputs[i].Type.IsText():
			h.text(2, v.Text)
		default:
			h.number(1, v.Num)
		}
	}
	if s.Label.Type == Category {
		h.text(3, e.Label.Text)
	} else {
		h.number(4, e.Label.Num)
	}
	sum := sha256.Sum256(h.buf)
	return payload(sum[:16])
}

func (h *hasher) number(kind byte, v float64) {
	h.buf = binary.LittleEndian.AppendUint64(append(h.buf, kind), math.Float64bits(v))
}

func (h *hasher) text(kind byte, text []byte) {
	h.buf = binary.LittleEndian.AppendUint64(append(h.buf, kind), uint64(len(text)))
	h.buf = append(h.buf, text...)
}
