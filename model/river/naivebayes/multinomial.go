package naivebayes

import (
	"lockstep/model/river"
)

// MultinomialNB is naive Bayes for amounts.
//
// Source: Manning, Raghavan and Schütze, Introduction to Information Retrieval,
// chapter 13.
var MultinomialNB = &river.Class{
	Name:    "MultinomialNB",
	Source:  "river.naive_bayes.MultinomialNB",
	Summary: "Naive Bayes for amounts, such as counts and one-hot columns; numbers must not be negative.",
	Task:    river.Classification,
	Params:  []river.Param{river.FloatParam("alpha", 1, 1e-9, 1e9, "additive smoothing")},
	Build:   buildMultinomialNB,
}

func buildMultinomialNB(b *river.Builder) {
	x := b.Features()
	b.NonNegative()
	b.AddClassifier(
		&multinomialNB{alpha: river.Arg[float64](b.Step(), "alpha"), x: x},
		8+8+b.Limits().Classes*amountsBound(&x),
	)
}

type multinomialNB struct {
	alpha float64
	x     river.Features

	n       uint64
	classes []multinomialClass
}

type multinomialClass struct {
	amounts
	logs logs
}

// logs keeps the logarithms of one class between two learned events. They are
// derived, and filled as they are asked for.
type logs struct {
	total   float64 // the denominator they were made for
	round   uint64  // raised to forget them all
	numbers []cachedLog
	dummies [][]cachedLog
	fresh   cachedLog
	prior   cachedLog // its round is the classifier's n
}

// cachedLog is a logarithm made in a round; of another round it is stale.
type cachedLog struct {
	round uint64
	v     float64
}

func (m *multinomialNB) Learn(f *river.Frame) {
	for f.Target >= len(m.classes) {
		m.classes = append(m.classes, multinomialClass{amounts: newAmounts(&m.x)})
	}
	m.n++
	c := &m.classes[f.Target]
	c.learn(&m.x, f, m.n)
	c.logs.forget()
}

func (l *logs) forget() { l.round++ }

// terms is River's n_terms: how many features were ever learned.
func (m *multinomialNB) terms() float64 {
	if m.n == 0 {
		return 0
	}
	return float64(m.x.Shown())
}

func (m *multinomialNB) Proba(f *river.Frame, p []float64) {
	m.jointLogLikelihood(f, p)
	normalize(p)
}

func (m *multinomialNB) jointLogLikelihood(f *river.Frame, jll []float64) {
	smoothing := float64(m.alpha * m.terms())
	for class := range jll {
		c := &m.classes[class]
		c.prepare(c.total+smoothing, len(m.x.Numbers), len(m.x.Encoders))
		sum := 0.0
		for _, s := range m.x.Order {
			if !s.Dummies {
				sum += float64(f.Numbers[m.x.Numbers[s.Index].Slot].V * c.numberLog(s.Index, m.alpha))
				continue
			}
			d := &f.Dummies[m.x.Encoders[s.Index].Slot]
			for _, key := range d.Known {
				sum += c.dummyLog(s.Index, int(key), m.alpha)
			}
			for range d.Fresh {
				sum += c.freshLog(m.alpha)
			}
		}
		if prior := &c.logs.prior; prior.round != m.n {
			*prior = cachedLog{round: m.n, v: river.Log(float64(c.count) / float64(m.n))}
		}
		jll[class] = c.logs.prior.v + sum
	}
}

// prepare makes room for the logarithms, and forgets those of another total.
func (c *multinomialClass) prepare(total float64, numbers, encoders int) {
	if c.logs.numbers == nil {
		c.logs.numbers = make([]cachedLog, numbers)
		c.logs.dummies = make([][]cachedLog, encoders)
		c.logs.round = 1
	}
	if c.logs.total != total {
		c.logs.forget()
		c.logs.total = total
	}
}

func (c *multinomialClass) numberLog(i int, alpha float64) float64 {
	return c.logs.get(&c.logs.numbers[i], c.numbers[i], alpha)
}

func (c *multinomialClass) dummyLog(encoder, key int, alpha float64) float64 {
	cache := river.Grow(c.logs.dummies[encoder], key)
	c.logs.dummies[encoder] = cache
	return c.logs.get(&cache[key], c.dummy(encoder, key), alpha)
}

func (c *multinomialClass) freshLog(alpha float64) float64 {
	return c.logs.get(&c.logs.fresh, 0, alpha)
}

// get is the logarithm of a feature's smoothed share. Where no feature was
// ever counted there is no share, and River divides by zero: it is no evidence.
func (l *logs) get(cached *cachedLog, amount, alpha float64) float64 {
	if cached.round != l.round {
		*cached = cachedLog{round: l.round}
		if l.total > 0 {
			cached.v = river.Log((amount + alpha) / l.total)
		}
	}
	return cached.v
}

func (m *multinomialNB) Unit() river.Unit { return river.LogLikelihood }

func (m *multinomialNB) Explain(f *river.Frame, add func(string, float64, []float64)) {
	each := byClass(m.classes, add)
	each("", 1, func(c *multinomialClass) float64 { return river.Log(float64(c.count) / float64(m.n)) })
	for i, n := range m.x.Numbers {
		x := f.Numbers[n.Slot].V
		each(n.Name, x, func(c *multinomialClass) float64 { return float64(x * c.numberLog(i, m.alpha)) })
	}
	for i, e := range m.x.Encoders {
		d := &f.Dummies[e.Slot]
		for _, key := range d.Known {
			each(e.Feature(key), 1, func(c *multinomialClass) float64 { return c.dummyLog(i, int(key), m.alpha) })
		}
		for k := range d.Fresh {
			each(e.FreshFeature(&d.Fresh[k]), 1, func(c *multinomialClass) float64 { return c.freshLog(m.alpha) })
		}
	}
}

func (m *multinomialNB) Code(s *river.State) {
	s.U64(&m.n)
	n := s.Length(len(m.classes), 32)
	if s.Reading() {
		if n != s.Classes() {
			s.Fail()
			n = 0
		}
		m.classes = make([]multinomialClass, n)
	}
	for i := range m.classes {
		m.classes[i].code(s, &m.x)
	}
}

func (m *multinomialNB) Report(r river.Report) {
	r.Set("n_terms", uint64(m.terms()))
	for class := range m.classes {
		m.classes[class].report(r, &m.x, r.Labels[class])
	}
}
