// Package stats has River's running statistics, which components are made of.
package stats

import "lockstep/model/river"

// Mean is a running mean.
//
// Source: river.stats.Mean.
type Mean struct {
	N    uint64
	Mean float64
}

// Update takes one more value.
func (m *Mean) Update(x float64) {
	m.N++
	m.Mean += float64((1 / float64(m.N)) * (x - m.Mean))
}

// Code codes the state; see river.State. It takes 16 bytes.
func (m *Mean) Code(s *river.State) {
	s.U64(&m.N)
	s.F64(&m.Mean)
}
