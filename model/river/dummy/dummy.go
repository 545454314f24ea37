// Package dummy has River's baselines, which every model must beat.
package dummy

import "lockstep/model/river"

// NoChangeClassifier predicts the class that came last.
//
// Source: river.dummy.NoChangeClassifier, whose probabilities come in the order
// of a Python set; here they are in the order of first learning.
var NoChangeClassifier = &river.Class{
	Name:    "NoChangeClassifier",
	Source:  "river.dummy.NoChangeClassifier",
	Summary: "Predicts the class that came last: a baseline.",
	Task:    river.Classification,
	Build:   func(b *river.Builder) { b.AddClassifier(&noChange{}, 16) },
}

type noChange struct {
	classes uint64
	last    uint64
}

func (m *noChange) Learn(f *river.Frame) {
	m.last = uint64(f.Target)
	m.classes = max(m.classes, m.last+1)
}

func (m *noChange) Proba(_ *river.Frame, p []float64) {
	clear(p)
	p[m.last] = 1
}

func (m *noChange) Code(s *river.State) {
	s.U64(&m.classes)
	s.U64(&m.last)
	if s.Reading() && (m.classes != uint64(s.Classes()) || m.last >= max(m.classes, 1)) {
		s.Fail()
		*m = noChange{}
	}
}

func (m *noChange) Report(r river.Report) {
	if m.classes > 0 {
		r.Set("last_class", r.Labels[m.last])
	}
}
