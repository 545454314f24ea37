package naivebayes

import (
	"lockstep/model/river"
)

// BernoulliNB is naive Bayes for features that an event has or has not: those
// above a threshold. One that an event has not is evidence, too.
//
// Source: Manning, Raghavan and Schütze, Introduction to Information Retrieval,
// chapter 13.
var BernoulliNB = &river.Class{
	Name:    "BernoulliNB",
	Source:  "river.naive_bayes.BernoulliNB",
	Summary: "Naive Bayes for yes or no: whether a number is above a threshold, or a one-hot column is 1.",
	Task:    river.Classification,
	Params: []river.Param{
		river.FloatParam("alpha", 1, 1e-9, 1e9, "additive smoothing"),
		river.FloatParam("true_threshold", 0, -1e100, 1e100, "above it a number counts as yes"),
	},
	Build: func(b *river.Builder) {
		s, x := b.Step(), b.Features()
		m := &bernoulliNB{x: x, alpha: river.Arg[float64](s, "alpha"), threshold: river.Arg[float64](s, "true_threshold")}
		class := 8 + 8*len(x.Numbers) + 8*(len(x.Encoders)+x.MaxKeys())
		b.AddClassifier(m, 8+8+b.Limits().Classes*class)
	},
}

type bernoulliNB struct {
	x                river.Features
	alpha, threshold float64

	n       uint64
	classes []bernoulliClass
}

type bernoulliClass struct {
	count   uint64
	numbers []uint64   // events in which each number was above the threshold
	dummies [][]uint64 // events in which each dummy was, by encoder and key; may be shorter than the keys

	absent []absent // by encoder; derived
}

// absent is what all dummies of an encoder add where they are not above the
// threshold. It holds for so many events of the class and dummies.
type absent struct {
	count uint64
	shown int
	sum   float64
	known bool
}

func (m *bernoulliNB) Learn(f *river.Frame) {
	for f.Target >= len(m.classes) {
		m.classes = append(m.classes, bernoulliClass{
			numbers: make([]uint64, len(m.x.Numbers)), dummies: make([][]uint64, len(m.x.Encoders)),
		})
	}
	m.n++
	c := &m.classes[f.Target]
	c.count++
	for i := range m.x.Numbers {
		if f.Numbers[m.x.Numbers[i].Slot].V > m.threshold {
			c.numbers[i]++
		}
	}
	for i := range m.x.Encoders {
		e := &m.x.Encoders[i]
		if m.threshold < 0 { // a dummy that is 0 is above it, too
			for _, key := range e.Shown() {
				c.dummies[i] = river.Grow(c.dummies[i], int(key))
				c.dummies[i][key]++
			}
			continue
		}
		for _, key := range f.Dummies[e.Slot].Known {
			c.dummies[i] = river.Grow(c.dummies[i], int(key))
			if m.threshold < 1 {
				c.dummies[i][key]++
			}
		}
	}
}

// log is the logarithm of a feature's share in a class, or of what is left.
func (m *bernoulliNB) log(count uint64, c *bernoulliClass, yes bool) float64 {
	p := (float64(count) + m.alpha) / (float64(c.count) + float64(2*m.alpha))
	if !yes {
		p = 1 - p
	}
	return river.Log(pdfEps + p)
}

func (m *bernoulliNB) Proba(f *river.Frame, p []float64) {
	for class := range p {
		c := &m.classes[class]
		sum := 0.0
		for _, s := range m.x.Order {
			if s.Dummies {
				sum += m.dummiesLog(f, c, s.Index)
			} else {
				sum += m.log(c.numbers[s.Index], c, f.Numbers[m.x.Numbers[s.Index].Slot].V > m.threshold)
			}
		}
		p[class] = river.Log(float64(c.count)/float64(m.n)) + sum
	}
	normalize(p)
}

// dummiesLog is what the dummies of an encoder add: as if none were above the
// threshold, and then the difference that those make that are. One that was
// never learned adds nothing.
func (m *bernoulliNB) dummiesLog(f *river.Frame, c *bernoulliClass, i int) float64 {
	sum := m.absentLog(c, i)
	m.present(f, i, func(key int32) {
		sum += m.log(at(c.dummies[i], key), c, true) - m.log(at(c.dummies[i], key), c, false)
	})
	return sum
}

// present calls do for each learned dummy of an event that is above the
// threshold.
func (m *bernoulliNB) present(f *river.Frame, i int, do func(key int32)) {
	e := &m.x.Encoders[i]
	switch {
	case m.threshold >= 1:
	case m.threshold < 0:
		for _, key := range e.Shown() {
			do(key)
		}
	default:
		for _, key := range f.Dummies[e.Slot].Known {
			if e.Since(key) > 0 {
				do(key)
			}
		}
	}
}

func (m *bernoulliNB) absentLog(c *bernoulliClass, i int) float64 {
	if c.absent == nil {
		c.absent = make([]absent, len(m.x.Encoders))
	}
	a, shown := &c.absent[i], m.x.Encoders[i].Shown()
	if !a.known || a.count != c.count || a.shown != len(shown) {
		*a = absent{count: c.count, shown: len(shown), known: true}
		for _, key := range shown {
			a.sum += m.log(at(c.dummies[i], key), c, false)
		}
	}
	return a.sum
}

func (m *bernoulliNB) Unit() river.Unit { return river.LogLikelihood }

func (m *bernoulliNB) Explain(f *river.Frame, add func(string, float64, []float64)) {
	each := byClass(m.classes, add)
	each("", 1, func(c *bernoulliClass) float64 { return river.Log(float64(c.count) / float64(m.n)) })
	for i, n := range m.x.Numbers {
		x := f.Numbers[n.Slot].V
		each(n.Name, x, func(c *bernoulliClass) float64 { return m.log(c.numbers[i], c, x > m.threshold) })
	}
	for i, e := range m.x.Encoders {
		own := f.Dummies[e.Slot].Known
		if m.threshold < 0 || m.threshold >= 1 {
			own = nil
		}
		for _, key := range own {
			if e.Since(key) > 0 {
				each(e.Feature(key), 1, func(c *bernoulliClass) float64 { return m.log(at(c.dummies[i], key), c, true) })
			}
		}
		each(e.Rest(), 0, func(c *bernoulliClass) float64 {
			rest := m.dummiesLog(f, c, i)
			for _, key := range own {
				if e.Since(key) > 0 {
					rest -= m.log(at(c.dummies[i], key), c, true)
				}
			}
			return rest
		})
	}
}

func (m *bernoulliNB) Code(s *river.State) {
	s.U64(&m.n)
	if n := s.Length(len(m.classes), 8); s.Reading() {
		if m.classes = nil; n != s.Classes() {
			s.Fail()
			return
		}
		m.classes = make([]bernoulliClass, n)
	}
	for i := range m.classes {
		c := &m.classes[i]
		s.U64(&c.count)
		if s.Reading() {
			c.numbers, c.dummies = make([]uint64, len(m.x.Numbers)), make([][]uint64, len(m.x.Encoders))
		}
		for j := range c.numbers {
			s.U64(&c.numbers[j])
		}
		for j := range c.dummies {
			if s.U64s(&c.dummies[j]); len(c.dummies[j]) > m.x.Encoders[j].MaxKeys() {
				s.Fail()
				c.dummies[j] = nil
			}
		}
	}
}

func (m *bernoulliNB) Report(r river.Report) {
	counts := r.In("feature_counts")
	for i := range m.classes {
		c := &m.classes[i]
		label := r.Labels[i]
		r.In("class_counts").Set(label, c.count)
		for j, n := range m.x.Numbers {
			counts.In(n.Name).Set(label, c.numbers[j])
		}
		for j, e := range m.x.Encoders {
			for _, key := range e.Shown() {
				counts.In(e.Feature(key)).Set(label, at(c.dummies[j], key))
			}
		}
	}
}
