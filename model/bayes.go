package model

import (
	"math"
)

// classifier is the last step of a pipeline. Classes are the labels' numbers
// in learning order, 0 to n-1; a class exists once an event of it was learned.
type classifier interface {
	learn(f *frame, class int)
	known() int // classes
	// jointLogLikelihood sets jll[c] to log P(c) + log P(event|c).
	jointLogLikelihood(f *frame, jll []float64)
	// explain calls add for the classes' priors and for every feature that
	// adds something, with what it adds to each class's log-likelihood.
	explain(f *frame, classes int, add func(feature string, value float64, contributions []float64))
	code(c *coder)
	counts(out map[string]any, labels []string) // see Model.Counts
}

// numberFeature is a numeric column that reaches the classifier.
type numberFeature struct {
	name string
	in   int // the frame's number
}

// multinomialNB is River's MultinomialNB.
//
// Source: river.naive_bayes.MultinomialNB; Manning, Raghavan and Schütze,
// Introduction to Information Retrieval, chapter 13.
type multinomialNB struct {
	alpha    float64
	numbers  []numberFeature
	encoders []*oneHotEncoder
	order    []summand // every sum runs over these, in this order

	n       uint64
	classes []multinomialClass
}

// summand is a number, or all dummies of an encoder.
type summand struct {
	dummies bool
	i       int // in numbers or encoders
}

type multinomialClass struct {
	count   uint64
	total   float64    // of all features' amounts
	amounts []float64  // by number
	dummies [][]uint64 // by encoder, by place; may be shorter than the keys
	last    uint64     // the learn event that taught this class last, from 1

	logs logs
}

// logs keeps the logarithms of one class between two learned events. They are
// derived and filled as they are asked for.
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

func (m *multinomialNB) learn(f *frame, class int) {
	for class >= len(m.classes) {
		m.classes = append(m.classes, multinomialClass{
			amounts: make([]float64, len(m.numbers)),
			dummies: make([][]uint64, len(m.encoders)),
		})
	}
	m.n++
	c := &m.classes[class]
	c.count++
	c.last = m.n
	for _, s := range m.order {
		if !s.dummies {
			x := f.nums[m.numbers[s.i].in].v
			c.amounts[s.i] += x
			c.total += x
			continue
		}
		for _, place := range f.dummies[m.encoders[s.i].out].known {
			c.dummies[s.i] = grow(c.dummies[s.i], int(place))
			c.dummies[s.i][place]++
			c.total++
		}
	}
	c.logs.forget()
}

// grow makes s long enough to have a place i.
func grow[T any](s []T, i int) []T {
	if i < len(s) {
		return s
	}
	return append(s, make([]T, i+1-len(s))...)
}

func (l *logs) forget() { l.round++ }

// terms is River's n_terms: how many features were ever learned.
func (m *multinomialNB) terms() float64 {
	if m.n == 0 {
		return 0
	}
	terms := len(m.numbers)
	for _, e := range m.encoders {
		terms += e.terms()
	}
	return float64(terms)
}

func (m *multinomialNB) jointLogLikelihood(f *frame, jll []float64) {
	smoothing := float64(m.alpha * m.terms())
	for class := range jll {
		c := &m.classes[class]
		c.prepare(c.total+smoothing, len(m.numbers), len(m.encoders))
		sum := 0.0
		for _, s := range m.order {
			if !s.dummies {
				sum += float64(f.nums[m.numbers[s.i].in].v * c.numberLog(s.i, m.alpha))
				continue
			}
			d := &f.dummies[m.encoders[s.i].out]
			for _, place := range d.known {
				sum += c.dummyLog(s.i, int(place), m.alpha)
			}
			for range d.fresh {
				sum += c.freshLog(m.alpha)
			}
		}
		if prior := &c.logs.prior; prior.round != m.n {
			*prior = cachedLog{round: m.n, v: log(float64(c.count) / float64(m.n))}
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

func (c *multinomialClass) dummyLog(encoder, place int, alpha float64) float64 {
	cache := grow(c.logs.dummies[encoder], place)
	c.logs.dummies[encoder] = cache
	return c.logs.get(&cache[place], c.dummyCount(encoder, place), alpha)
}

func (c *multinomialClass) freshLog(alpha float64) float64 {
	return c.logs.get(&c.logs.fresh, 0, alpha)
}

func (c *multinomialClass) dummyCount(encoder, place int) float64 {
	if place < len(c.dummies[encoder]) {
		return float64(c.dummies[encoder][place])
	}
	return 0
}

// get is the logarithm of a feature's smoothed share. Where no feature was
// ever counted there is no share, and River divides by zero: it is no evidence.
func (l *logs) get(cached *cachedLog, amount, alpha float64) float64 {
	if cached.round != l.round {
		*cached = cachedLog{round: l.round}
		if l.total > 0 {
			cached.v = log((amount + alpha) / l.total)
		}
	}
	return cached.v
}

func (m *multinomialNB) known() int { return len(m.classes) }

func (m *multinomialNB) explain(f *frame, classes int, add func(string, float64, []float64)) {
	m.jointLogLikelihood(f, make([]float64, classes)) // prepares the logarithms
	each := contributions(m.classes, add)
	each("", 1, func(c *multinomialClass) float64 { return log(float64(c.count) / float64(m.n)) })
	for i, n := range m.numbers {
		each(n.name, f.nums[n.in].v, func(c *multinomialClass) float64 { return float64(f.nums[n.in].v * c.numberLog(i, m.alpha)) })
	}
	for i, e := range m.encoders {
		for _, place := range f.dummies[e.out].known {
			each(e.feature(e.keys[place].text, e.keys[place].column), 1, func(c *multinomialClass) float64 { return c.dummyLog(i, int(place), m.alpha) })
		}
		for _, d := range f.dummies[e.out].fresh {
			each(e.feature(string(d.key), d.column), 1, func(c *multinomialClass) float64 { return c.freshLog(m.alpha) })
		}
	}
}

func (m *multinomialNB) code(c *coder) {
	c.u64(&m.n)
	n := c.length(len(m.classes), 32)
	if c.reading {
		m.classes = make([]multinomialClass, n)
	}
	for i := range m.classes {
		m.classes[i].code(c, len(m.numbers), len(m.encoders))
	}
}

func (k *multinomialClass) code(c *coder, numbers, encoders int) {
	c.u64(&k.count)
	c.f64(&k.total)
	c.u64(&k.last)
	c.f64s(&k.amounts)
	if c.reading {
		k.dummies = make([][]uint64, encoders)
		if len(k.amounts) != numbers {
			c.fail()
		}
	}
	for i := range k.dummies {
		c.u64s(&k.dummies[i])
	}
}

// gaussianNB is River's GaussianNB: for each class and feature a normal
// distribution with the running mean and variance (ddof 0).
//
// Source: river.naive_bayes.GaussianNB, river.proba.Gaussian, river.stats.Var.
type gaussianNB struct {
	numbers []numberFeature

	n       uint64
	classes []gaussianClass
}

type gaussianClass struct {
	count     uint64
	gaussians []gaussian // by number
}

type gaussian struct {
	mean mean
	s    float64 // sum of squared differences from the mean
}

// pdfEps keeps the logarithm of a density finite. River writes 10e-10.
const pdfEps = 10e-10

// sqrtTau is the square root of 2π.
const sqrtTau = 2.50662827463100050241576528481104525

func (g *gaussian) learn(x float64) {
	old := g.mean.mean
	g.mean.update(x)
	g.s += float64((x - old) * (x - g.mean.mean))
}

// logDensity is log(pdfEps + density at x); a density of no variance is 0.
func (g *gaussian) logDensity(x float64) float64 {
	density := 0.0
	if variance := g.s / float64(g.mean.n); variance > 0 {
		sigma := sqrt(variance)
		z := (x - g.mean.mean) / sigma
		density = exp(float64(z*z)/-2) / sqrtTau / sigma
	}
	return log(pdfEps + density)
}

func (m *gaussianNB) learn(f *frame, class int) {
	for class >= len(m.classes) {
		m.classes = append(m.classes, gaussianClass{gaussians: make([]gaussian, len(m.numbers))})
	}
	m.n++
	c := &m.classes[class]
	c.count++
	for i := range m.numbers {
		c.gaussians[i].learn(f.nums[m.numbers[i].in].v)
	}
}

func (m *gaussianNB) jointLogLikelihood(f *frame, jll []float64) {
	for class := range jll {
		c := &m.classes[class]
		sum := 0.0
		for i := range m.numbers {
			sum += c.gaussians[i].logDensity(f.nums[m.numbers[i].in].v)
		}
		jll[class] = log(float64(c.count)/float64(m.n)) + sum
	}
}

func (m *gaussianNB) known() int { return len(m.classes) }

func (m *gaussianNB) explain(f *frame, _ int, add func(string, float64, []float64)) {
	each := contributions(m.classes, add)
	each("", 1, func(c *gaussianClass) float64 { return log(float64(c.count) / float64(m.n)) })
	for i, n := range m.numbers {
		x := f.nums[n.in].v
		each(n.name, x, func(c *gaussianClass) float64 { return c.gaussians[i].logDensity(x) })
	}
}

func (m *gaussianNB) code(c *coder) {
	c.u64(&m.n)
	n := c.length(len(m.classes), 8)
	if c.reading {
		m.classes = make([]gaussianClass, n)
	}
	for i := range m.classes {
		k := &m.classes[i]
		c.u64(&k.count)
		if c.reading {
			k.gaussians = make([]gaussian, len(m.numbers))
		}
		for j := range k.gaussians {
			k.gaussians[j].mean.code(c)
			c.f64(&k.gaussians[j].s)
		}
	}
}

// contributions returns a function that adds a feature, with what it gives to
// the log-likelihood of each class.
func contributions[C any](classes []C, add func(string, float64, []float64)) func(feature string, value float64, of func(c *C) float64) {
	return func(feature string, value float64, of func(c *C) float64) {
		out := make([]float64, len(classes))
		for class := range out {
			out[class] = of(&classes[class])
		}
		add(feature, value, out)
	}
}

// probabilities turns joint log-likelihoods into probabilities, in place, as
// scipy.special.logsumexp and River do: no renormalisation, so that their sum
// is only near 1.
func probabilities(jll []float64) {
	most := math.Inf(-1)
	for _, v := range jll {
		if v > most {
			most = v
		}
	}
	ties, sum := 0.0, 0.0
	for _, v := range jll {
		if v == most {
			ties++
		} else {
			sum += exp(v - most)
		}
	}
	lse := log1p(sum / ties)
	if ties > 1 { // the logarithm of 1 adds nothing
		lse += log(ties)
	}
	lse += most
	for i, v := range jll {
		jll[i] = exp(v - lse)
	}
}

func sqrt(x float64) float64 { return math.Sqrt(x) }
