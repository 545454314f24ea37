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
	class := 8 + 8 + 8 + 8 + 8*len(x.Numbers) + 8*len(x.Encoders) + 8*x.MaxKeys()
	b.AddClassifier(&multinomialNB{alpha: river.Arg[float64](b.Step(), "alpha"), x: x}, 8+8+b.Limits().Classes*class)
}

type multinomialNB struct {
	alpha float64
	x     river.Features

	n       uint64
	classes []multinomialClass
}

type multinomialClass struct {
	count   uint64
	total   float64    // of all features' amounts
	amounts []float64  // by number
	dummies [][]uint64 // by encoder, by key; may be shorter than the keys
	last    uint64     // the event that taught this class last, from 1

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
		m.classes = append(m.classes, multinomialClass{
			amounts: make([]float64, len(m.x.Numbers)),
			dummies: make([][]uint64, len(m.x.Encoders)),
		})
	}
	m.n++
	c := &m.classes[f.Target]
	c.count++
	c.last = m.n
	for _, s := range m.x.Order {
		if !s.Dummies {
			x := f.Numbers[m.x.Numbers[s.Index].Slot].V
			c.amounts[s.Index] += x
			c.total += x
			continue
		}
		for _, key := range f.Dummies[m.x.Encoders[s.Index].Slot].Known {
			c.dummies[s.Index] = river.Grow(c.dummies[s.Index], int(key))
			c.dummies[s.Index][key]++
			c.total++
		}
	}
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
	return c.logs.get(&c.logs.numbers[i], c.amounts[i], alpha)
}

func (c *multinomialClass) dummyLog(encoder, key int, alpha float64) float64 {
	cache := river.Grow(c.logs.dummies[encoder], key)
	c.logs.dummies[encoder] = cache
	return c.logs.get(&cache[key], c.dummyCount(encoder, key), alpha)
}

func (c *multinomialClass) freshLog(alpha float64) float64 {
	return c.logs.get(&c.logs.fresh, 0, alpha)
}

func (c *multinomialClass) dummyCount(encoder, key int) float64 {
	if key < len(c.dummies[encoder]) {
		return float64(c.dummies[encoder][key])
	}
	return 0
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

func (c *multinomialClass) code(s *river.State, x *river.Features) {
	s.U64(&c.count)
	s.F64(&c.total)
	s.U64(&c.last)
	s.F64s(&c.amounts)
	if s.Reading() {
		c.dummies = make([][]uint64, len(x.Encoders))
		if len(c.amounts) != len(x.Numbers) {
			s.Fail()
		}
	}
	for i := range c.dummies {
		s.U64s(&c.dummies[i])
	}
}

func (m *multinomialNB) Report(r river.Report) {
	classCounts, totals, features := r.In("class_counts"), r.In("class_totals"), r.In("feature_counts")
	r.Set("n_terms", uint64(m.terms()))
	for class := range m.classes {
		c, label := &m.classes[class], r.Labels[class]
		classCounts.Set(label, c.count)
		totals.Set(label, c.total)
		for i, n := range m.x.Numbers {
			features.In(n.Name).Set(label, c.amounts[i])
		}
		for i, e := range m.x.Encoders {
			for _, key := range e.Shown() {
				if c.last >= e.Since(key) {
					features.In(e.Feature(key)).Set(label, c.dummyCount(i, int(key)))
				}
			}
		}
	}
}
