package dummy

import "lockstep/model/river"

// PriorClassifier predicts each class by its share of the events.
//
// Source: river.dummy.PriorClassifier.
var PriorClassifier = &river.Class{
	Name:    "PriorClassifier",
	Source:  "river.dummy.PriorClassifier",
	Summary: "Predicts the class that came most often: a baseline.",
	Task:    river.Classification,
	Build:   func(b *river.Builder) { b.AddClassifier(&prior{}, 8+8+8*b.Limits().Classes) },
}

type prior struct {
	n      uint64
	counts []uint64 // by class
}

func (m *prior) Learn(f *river.Frame) {
	m.counts = river.Grow(m.counts, f.Target)
	m.counts[f.Target]++
	m.n++
}

func (m *prior) Proba(_ *river.Frame, p []float64) {
	for class := range p {
		p[class] = float64(m.counts[class]) / float64(m.n)
	}
}

func (m *prior) Code(s *river.State) {
	s.U64(&m.n)
	if s.U64s(&m.counts); s.Reading() && (len(m.counts) != s.Classes() || m.n == 0 && len(m.counts) > 0) {
		s.Fail()
		*m = prior{}
	}
}

func (m *prior) Report(r river.Report) {
	counts := r.In("counts")
	for class, n := range m.counts {
		counts.Set(r.Labels[class], n)
	}
	r.Set("n", m.n)
}
