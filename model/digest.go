package model

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"lockstep/model/river"
)

// Encoding names the canonical encoding of a state. Digests of different
// encodings are not compared.
const Encoding = "lockstep-state-1"

// segment is a part of the state that is encoded and hashed by itself, so
// that only what changed is hashed again.
type segment struct {
	name string
	code func(c *river.State)
	hash [32]byte
}

// digests are the segments of a model's state, in the order of the encoding.
type digests struct {
	segments []segment
	pages    int  // the first of the ids' pages, which know what was changed
	stale    bool // an event was learned since the others were hashed
}

func newDigests(m *Model) digests {
	d := digests{stale: true}
	add := func(name string, code func(c *river.State)) {
		d.segments = append(d.segments, segment{name: name, code: code})
	}
	add("core", m.codeCore)
	for i := range m.vocabs {
		add("values of "+m.spec.Inputs[i].Name, m.vocabs[i].Code)
	}
	add("labels", m.codeLabels)
	for i, step := range m.program.Steps {
		add(fmt.Sprintf("step %d", i), step.Code)
	}
	add(m.program.Task().String(), m.program.Last().Code)
	add("metrics", m.metrics.code)
	add("ids", m.ids.head)
	d.pages = len(d.segments)
	for i := range m.ids.changed {
		add(fmt.Sprintf("ids %d", i), func(c *river.State) { m.ids.codePage(c, i) })
	}
	return d
}

func (m *Model) codeCore(c *river.State) {
	c.U64(&m.seq)
	c.Text(&m.incarnation)
	c.Fixed(m.tip[:])
	c.Fixed(m.logChain[:])
	c.Fixed(m.stateChain[:])
	c.U64(&m.learned)
	c.U64(&m.rejected)
	c.U64(&m.duplicates)
}

func (m *Model) codeLabels(c *river.State) {
	m.labels.Code(c)
	c.SetClasses(len(m.labels.Texts))
}

// Digest is the SHA-256 of the canonical encoding's segments: equal digests
// mean equal states.
func (m *Model) Digest() [32]byte {
	h := sha256.New()
	h.Write([]byte(Encoding))
	h.Write(m.contract[:])
	c := river.NewWriter(nil)
	for i := range m.digests.segments {
		s := &m.digests.segments[i]
		if m.changed(i) {
			c.Reset(c.Bytes()[:0])
			s.code(c)
			s.hash = sha256.Sum256(c.Bytes())
		}
		h.Write([]byte(s.name))
		h.Write([]byte{0})
		h.Write(s.hash[:])
	}
	m.digests.stale = false
	clear(m.ids.changed)
	return [32]byte(h.Sum(nil))
}

// changed reports whether a segment may have changed since it was hashed.
func (m *Model) changed(segment int) bool {
	if page := segment - m.digests.pages; page >= 0 {
		return m.ids.changed[page]
	}
	return segment == 0 || m.digests.stale // every message changes the core
}

// AppendState appends the canonical encoding of the state: the encoding's
// name, the contract, the segments, and the digest.
func (m *Model) AppendState(dst []byte) []byte {
	c := river.NewWriter(dst)
	encoding := Encoding
	c.Text(&encoding)
	c.Fixed(m.contract[:])
	for i := range m.digests.segments {
		m.digests.segments[i].code(c)
	}
	digest := m.Digest()
	c.Fixed(digest[:])
	return c.Bytes()
}

// Restore makes a model from the canonical encoding of a state of the same
// spec. It returns an error, and never a wrong state, for anything else.
func Restore(s *Spec, state []byte) (*Model, error) {
	body := len(state) - sha256.Size
	if body < 0 {
		return nil, river.ErrState
	}
	m, err := restore(s, state[:body])
	if err != nil {
		return nil, err
	}
	if m.Digest() != [32]byte(state[body:]) {
		return nil, river.ErrState
	}
	return m, nil
}

// Flipped is a copy of the model with one bit of its state flipped, as failing
// memory does it; false if that gives no state at all. It is for tests of what
// notices it.
func (m *Model) Flipped(bit int) (*Model, bool) {
	state := m.AppendState(nil)
	body := state[:len(state)-sha256.Size]
	body[bit/8%len(body)] ^= 1 << (bit % 8)
	flipped, err := restore(m.spec, body)
	return flipped, err == nil
}

// restore reads a state without its digest.
func restore(s *Spec, state []byte) (*Model, error) {
	m, err := New(s)
	if err != nil {
		return nil, err
	}
	c := river.NewReader(state)
	var encoding string
	var contract [32]byte
	c.Text(&encoding)
	c.Fixed(contract[:])
	switch {
	case c.Err() != nil || !strings.HasPrefix(encoding, "lockstep-state-"):
		return nil, river.ErrState
	case encoding != Encoding:
		return nil, fmt.Errorf("state has the encoding %q, this program reads %s", encoding, Encoding)
	case contract != m.contract:
		return nil, fmt.Errorf("state is of the contract %x, the spec's is %x", contract[:8], m.contract[:8])
	}
	for i := range m.digests.segments {
		m.digests.segments[i].code(c)
		if c.Err() != nil {
			return nil, c.Err()
		}
	}
	if len(c.Bytes()) != 0 || !m.consistent() {
		return nil, river.ErrState
	}
	return m, nil
}

// consistent reports whether the parts of a state that was read fit each other,
// so that nothing refers past an end.
func (m *Model) consistent() bool {
	labels := len(m.labels.Texts)
	if m.program.Binary != nil && !slices.Equal(m.labels.Texts, []string{falseText, trueText}) {
		return false
	}
	if labels > m.spec.Label.MaxValues || len(m.metrics.confusion) > labels {
		return false
	}
	for _, row := range m.metrics.confusion {
		if len(row) > labels+1 {
			return false
		}
	}
	for i := range m.vocabs {
		if len(m.vocabs[i].Texts) > m.spec.Inputs[i].MaxValues {
			return false
		}
	}
	for i := range m.ids.entries {
		e := &m.ids.entries[i]
		if m.spec.Label.Type == Number {
			if !finite(e.label.number()) || !finite(e.predicted.number()) {
				return false
			}
			continue
		}
		if !e.label.among(0, labels) || !e.predicted.among(none, labels) {
			return false
		}
	}
	return true
}
