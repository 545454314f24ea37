package naivebayes

import "lockstep/model/river"

// ComplementNB is naive Bayes for amounts, by what the other classes have of
// each feature. There is no prior.
//
// Where River divides by zero, as no feature was ever counted, this has no
// evidence for any class.
//
// Source: Rennie, Shih, Teevan and Karger, Tackling the Poor Assumptions of
// Naive Bayes Text Classifiers, 2003.
var ComplementNB = &river.Class{
	Name:    "ComplementNB",
	Source:  "river.naive_bayes.ComplementNB",
	Summary: "Naive Bayes by what the other classes have of each amount, for labels of which some are rare.",
	Task:    river.Classification,
	Params:  []river.Param{river.FloatParam("alpha", 1, 1e-9, 1e9, "additive smoothing")},
	Build:   buildComplementNB,
}

func buildComplementNB(b *river.Builder) {
	x := b.Features()
	b.NonNegative()
	m := &complementNB{alpha: river.Arg[float64](b.Step(), "alpha"), x: x, all: newAmounts(&x)}
	b.AddClassifier(m, 8+(b.Limits().Classes+1)*amountsBound(&x))
}

type complementNB struct {
	alpha float64
	x     river.Features

	all     amounts // of all classes
	classes []amounts
}

func (m *complementNB) Learn(f *river.Frame) {
	for f.Target >= len(m.classes) {
		m.classes = append(m.classes, newAmounts(&m.x))
	}
	m.all.learn(&m.x, f, m.all.count+1)
	m.classes[f.Target].learn(&m.x, f, m.all.count)
}

func (m *complementNB) Proba(f *river.Frame, p []float64) {
	for class := range p {
		p[class] = m.logLikelihood(&m.classes[class], f)
	}
	normalize(p)
}

func (m *complementNB) logLikelihood(c *amounts, f *river.Frame) float64 {
	log := m.logTotal(c)
	sum := 0.0
	for _, s := range m.x.Order {
		if !s.Dummies {
			sum += float64(f.Numbers[m.x.Numbers[s.Index].Slot].V * (log - m.numberLog(c, s.Index)))
			continue
		}
		d := &f.Dummies[m.x.Encoders[s.Index].Slot]
		for _, key := range d.Known {
			sum += log - m.dummyLog(c, s.Index, int(key))
		}
		for range d.Fresh {
			sum += log - river.Log(m.alpha)
		}
	}
	return sum
}

// logTotal is the logarithm of what the other classes have of all features. A
// class's sums never exceed those of all classes, rounded or not, so the
// differences here and below are never negative.
func (m *complementNB) logTotal(c *amounts) float64 {
	terms := float64(max(1, m.x.Shown()))
	return river.Log((m.all.total - c.total) + float64(m.alpha*terms))
}

// numberLog and dummyLog are the logarithms of what the others have of one.
func (m *complementNB) numberLog(c *amounts, i int) float64 {
	return river.Log((m.all.numbers[i] - c.numbers[i]) + m.alpha)
}

func (m *complementNB) dummyLog(c *amounts, encoder, key int) float64 {
	return river.Log((m.all.dummy(encoder, key) - c.dummy(encoder, key)) + m.alpha)
}

func (m *complementNB) Unit() river.Unit { return river.LogLikelihood }

func (m *complementNB) Explain(f *river.Frame, add func(string, float64, []float64)) {
	each := byClass(m.classes, add)
	for i, n := range m.x.Numbers {
		x := f.Numbers[n.Slot].V
		each(n.Name, x, func(c *amounts) float64 { return float64(x * (m.logTotal(c) - m.numberLog(c, i))) })
	}
	for i, e := range m.x.Encoders {
		d := &f.Dummies[e.Slot]
		for _, key := range d.Known {
			each(e.Feature(key), 1, func(c *amounts) float64 { return m.logTotal(c) - m.dummyLog(c, i, int(key)) })
		}
		for k := range d.Fresh {
			each(e.FreshFeature(&d.Fresh[k]), 1, func(c *amounts) float64 { return m.logTotal(c) - river.Log(m.alpha) })
		}
	}
}

func (m *complementNB) Code(s *river.State) {
	m.all.code(s, &m.x)
	n := s.Length(len(m.classes), 32)
	if s.Reading() {
		if n != s.Classes() {
			s.Fail()
			n = 0
		}
		m.classes = make([]amounts, n)
	}
	for i := range m.classes {
		m.classes[i].code(s, &m.x)
	}
}

func (m *complementNB) Report(r river.Report) {
	totals := r.In("feature_totals")
	for i, n := range m.x.Numbers {
		totals.Set(n.Name, m.all.numbers[i])
	}
	for i, e := range m.x.Encoders {
		for _, key := range e.Shown() {
			totals.Set(e.Feature(key), m.all.dummy(i, int(key)))
		}
	}
	for class := range m.classes {
		m.classes[class].report(r, &m.x, r.Labels[class])
	}
}
