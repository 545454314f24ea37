package model

import (
	"encoding/binary"
	"errors"
	"math"
)

// errState is returned when bytes are not the canonical encoding of a state.
var errState = errors.New("not the canonical encoding of a state")

// coder walks a state in one fixed order and either writes it or reads it,
// so that encoding and decoding cannot drift apart: each component describes
// its fields once, in a method called code.
//
// The encoding is canonical: integers and doubles are 8 bytes little endian
// (doubles by their bits), texts and lists are preceded by their length, and
// nothing else is written.
type coder struct {
	buf     []byte // written so far, or left to read
	reading bool
	err     error // the first error met while reading; later reads give zeros
}

func (c *coder) u64(p *uint64) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, *p)
		return
	}
	*p = 0
	if b := c.take(8); b != nil {
		*p = binary.LittleEndian.Uint64(b)
	}
}

func (c *coder) i32(p *int32) {
	v := uint64(uint32(*p))
	c.u64(&v)
	if c.reading && v > math.MaxUint32 {
		c.fail()
		return
	}
	*p = int32(uint32(v))
}

func (c *coder) f64(p *float64) {
	v := math.Float64bits(*p)
	c.u64(&v)
	*p = math.Float64frombits(v)
}

func (c *coder) boolean(p *bool) {
	var v uint64
	if *p {
		v = 1
	}
	c.u64(&v)
	if v > 1 {
		c.fail()
	}
	*p = v == 1
}

// fixed codes exactly len(p) bytes.
func (c *coder) fixed(p []byte) {
	if !c.reading {
		c.buf = append(c.buf, p...)
		return
	}
	copy(p, c.take(len(p)))
}

func (c *coder) text(p *string) {
	n := c.length(len(*p), 1)
	if !c.reading {
		c.buf = append(c.buf, *p...)
		return
	}
	*p = string(c.take(n))
}

// length codes the length of a list whose elements take at least size bytes
// each: a length that the bytes left cannot hold is refused before anything
// is allocated for it.
func (c *coder) length(n, size int) int {
	v := uint64(n)
	c.u64(&v)
	if c.reading && v > uint64(len(c.buf)/size) {
		c.fail()
		return 0
	}
	return int(v)
}

func (c *coder) u64s(p *[]uint64) {
	n := c.length(len(*p), 8)
	if c.reading {
		*p = make([]uint64, n)
	}
	for i := range *p {
		c.u64(&(*p)[i])
	}
}

func (c *coder) f64s(p *[]float64) {
	n := c.length(len(*p), 8)
	if c.reading {
		*p = make([]float64, n)
	}
	for i := range *p {
		c.f64(&(*p)[i])
	}
}

func (c *coder) take(n int) []byte {
	if c.err != nil || n > len(c.buf) {
		c.fail()
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

func (c *coder) fail() {
	if c.err == nil {
		c.err = errState
	}
	c.buf = nil
}
