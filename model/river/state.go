package river

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrState is returned when bytes are not the canonical encoding of a state.
var ErrState = errors.New("not the canonical encoding of a state")

// State is a state that is being encoded or decoded. It is walked in one fixed
// order, which either writes it or reads it, so that encoding and decoding
// cannot drift apart: each component describes its fields once, in its method
// Code.
//
// The encoding is canonical: integers and doubles are 8 bytes little endian
// (doubles by their bits), texts and lists are preceded by their length, and
// nothing else is written.
type State struct {
	buf     []byte // written so far, or left to read
	reading bool
	classes int
	err     error // the first error met while reading; later reads give zeros
}

// NewWriter makes a State that appends to buf.
func NewWriter(buf []byte) *State { return &State{buf: buf} }

// NewReader makes a State that reads buf.
func NewReader(buf []byte) *State { return &State{buf: buf, reading: true} }

// Reading reports whether the state is read; else it is written.
func (s *State) Reading() bool { return s.reading }

// Bytes are what was written, or what is left to read.
func (s *State) Bytes() []byte { return s.buf }

// Reset makes s append to buf.
func (s *State) Reset(buf []byte) { *s = State{buf: buf, classes: s.classes} }

// Err is the first error met while reading. It is ErrState, or nil.
func (s *State) Err() error { return s.err }

// Classes is how many classes were learned, known before the components are
// read: a classifier must have as many.
func (s *State) Classes() int { return s.classes }

// SetClasses tells the components that follow how many classes were learned.
func (s *State) SetClasses(n int) { s.classes = n }

// U64 codes an integer.
func (s *State) U64(p *uint64) {
	if !s.reading {
		s.buf = binary.LittleEndian.AppendUint64(s.buf, *p)
		return
	}
	*p = 0
	if b := s.take(8); b != nil {
		*p = binary.LittleEndian.Uint64(b)
	}
}

// I32 codes a small integer.
func (s *State) I32(p *int32) {
	v := uint64(uint32(*p))
	s.U64(&v)
	if s.reading && v > math.MaxUint32 {
		s.Fail()
		return
	}
	*p = int32(uint32(v))
}

// F64 codes a double by its bits.
func (s *State) F64(p *float64) {
	v := math.Float64bits(*p)
	s.U64(&v)
	*p = math.Float64frombits(v)
}

// Bool codes a switch.
func (s *State) Bool(p *bool) {
	var v uint64
	if *p {
		v = 1
	}
	s.U64(&v)
	if v > 1 {
		s.Fail()
	}
	*p = v == 1
}

// Fixed codes exactly len(p) bytes.
func (s *State) Fixed(p []byte) {
	if !s.reading {
		s.buf = append(s.buf, p...)
		return
	}
	copy(p, s.take(len(p)))
}

// Text codes a text.
func (s *State) Text(p *string) {
	n := s.Length(len(*p), 1)
	if !s.reading {
		s.buf = append(s.buf, *p...)
		return
	}
	*p = string(s.take(n))
}

// Length codes the length of a list whose elements take at least size bytes
// each: a length that the bytes left cannot hold is refused before anything
// is allocated for it.
func (s *State) Length(n, size int) int {
	v := uint64(n)
	s.U64(&v)
	if s.reading && v > uint64(len(s.buf)/size) {
		s.Fail()
		return 0
	}
	return int(v)
}

// U64s codes a list of integers.
func (s *State) U64s(p *[]uint64) {
	n := s.Length(len(*p), 8)
	if s.reading {
		*p = make([]uint64, n)
	}
	for i := range *p {
		s.U64(&(*p)[i])
	}
}

// F64s codes a list of doubles.
func (s *State) F64s(p *[]float64) {
	n := s.Length(len(*p), 8)
	if s.reading {
		*p = make([]float64, n)
	}
	for i := range *p {
		s.F64(&(*p)[i])
	}
}

func (s *State) take(n int) []byte {
	if s.err != nil || n > len(s.buf) {
		s.Fail()
		return nil
	}
	b := s.buf[:n]
	s.buf = s.buf[n:]
	return b
}

// Fail says that what was read is not a state.
func (s *State) Fail() {
	if s.err == nil {
		s.err = ErrState
	}
	s.buf = nil
}
