package naivebayes

import (
	"lockstep/model/river"
	"lockstep/model/river/stats"
)

// GaussianNB is naive Bayes with a normal distribution for each class and
// feature, of the running mean and variance (ddof 0).
//
// Source: river.proba.Gaussian, river.stats.Var.
var GaussianNB = &river.Class{
	Name:   "GaussianNB",
	Source: "river.naive_bayes.GaussianNB",
	Summary: "Naive Bayes for numbers that are normally distributed within a class; a one-hot column counts as such a " +
		"number.",
	Task:  river.Classification,
	Build: buildGaussianNB,
}

func buildGaussianNB(b *river.Builder) {
	x := b.Features()
	class := 8 + 24*len(x.Numbers) + 16*(len(x.Encoders)+x.MaxKeys())
	b.AddClassifier(&gaussianNB{x: x}, 8+8+b.Limits().Classes*class)
}

type gaussianNB struct {
	x river.Features

	n       uint64
	classes []gaussianClass
}

type gaussianClass struct {
	count     uint64
	gaussians []gaussian        // by number
	dummies   []gaussianDummies // by encoder
}

type gaussian struct {
	mean stats.Mean
	s    float64 // sum of squared differences from the mean
}

// gaussianDummies are the distributions of dummies, by key; a list may be
// shorter than the keys. A dummy is 0 or 1, so mean and variance follow from
// two integers.
type gaussianDummies struct {
	ones   []uint64 // events in which it was 1
	before []uint64 // events of the class before the dummy was first handed on

	zeros    float64 // what all dummies add when they are 0; derived
	zerosFor zerosOf
}

// zerosOf is what zeros was computed of.
type zerosOf struct {
	count uint64 // events of the class
	shown int    // dummies
}

// pdfEps keeps the logarithm of a density finite. River writes 10e-10.
const pdfEps = 10e-10

// logPDFEps is what a feature adds to a class that never learned it.
const logPDFEps = -20.723265836946411156161923092159277868409913397658678

// sqrtTau is the square root of 2π.
const sqrtTau = 2.50662827463100050241576528481104525

func (g *gaussian) learn(x float64) {
	old := g.mean.Mean
	g.mean.Update(x)
	g.s += float64((x - old) * (x - g.mean.Mean))
}

// logDensity is log(pdfEps + density at x); a density of no variance is 0.
func (g *gaussian) logDensity(x float64) float64 {
	density := 0.0
	if variance := g.s / float64(g.mean.N); variance > 0 {
		sigma := river.Sqrt(variance)
		z := (x - g.mean.Mean) / sigma
		density = river.Exp(float64(z*z)/-2) / sqrtTau / sigma
	}
	return river.Log(pdfEps + density)
}

// logDensity is log(pdfEps + density) of a dummy in a class of count events,
// at 1 or at 0. With k ones among n events its mean is k/n and its variance
// k(n-k)/n², so the squared distance from the mean, in deviations, is (n-k)/k at
// 1 and k/(n-k) at 0.
func (d *gaussianDummies) logDensity(key int32, count uint64, one bool) float64 {
	n, k := float64(count-at(d.before, key)), float64(at(d.ones, key))
	if k == 0 || k == n {
		return logPDFEps // no variance, or never learned
	}
	z2 := k / (n - k)
	if one {
		z2 = (n - k) / k
	}
	sigma := river.Sqrt(float64(k*(n-k))) / n
	return river.Log(pdfEps + river.Exp(z2/-2)/sqrtTau/sigma)
}

func at(list []uint64, key int32) uint64 {
	if int(key) < len(list) {
		return list[key]
	}
	return 0
}

func (m *gaussianNB) Learn(f *river.Frame) {
	m.n++
	for i := range m.x.Encoders {
		m.meet(i)
	}
	for f.Target >= len(m.classes) {
		m.classes = append(m.classes, gaussianClass{
			gaussians: make([]gaussian, len(m.x.Numbers)),
			dummies:   make([]gaussianDummies, len(m.x.Encoders)),
		})
	}
	c := &m.classes[f.Target]
	c.count++
	for i := range m.x.Numbers {
		c.gaussians[i].learn(f.Numbers[m.x.Numbers[i].Slot].V)
	}
	for i := range m.x.Encoders {
		for _, key := range f.Dummies[m.x.Encoders[i].Slot].Known {
			d := &c.dummies[i]
			d.ones = river.Grow(d.ones, int(key))
			d.ones[key]++
		}
	}
}

// meet notes, in each class, how many events came before those dummies that are
// handed on for the first time.
func (m *gaussianNB) meet(encoder int) {
	e := m.x.Encoders[encoder]
	shown := e.Shown()
	for i := len(shown) - 1; i >= 0 && e.Since(shown[i]) == m.n; i-- {
		for class := range m.classes {
			c := &m.classes[class]
			d := &c.dummies[encoder]
			d.before = river.Grow(d.before, int(shown[i]))
			d.before[shown[i]] = c.count
		}
	}
}

func (m *gaussianNB) Proba(f *river.Frame, p []float64) {
	for class := range p {
		c := &m.classes[class]
		sum := 0.0
		for _, s := range m.x.Order {
			if s.Dummies {
				sum += c.dummiesLog(f, m.x.Encoders[s.Index], s.Index)
			} else {
				sum += c.gaussians[s.Index].logDensity(f.Numbers[m.x.Numbers[s.Index].Slot].V)
			}
		}
		p[class] = river.Log(float64(c.count)/float64(m.n)) + sum
	}
	normalize(p)
}

// dummiesLog is what the dummies of an encoder add to a class's log-likelihood:
// as if all were 0, and then the difference that those make that are 1.
func (c *gaussianClass) dummiesLog(f *river.Frame, e river.EncoderFeatures, i int) float64 {
	d := &f.Dummies[e.Slot]
	sum := c.zerosLog(e, i)
	for _, key := range d.Known {
		if e.Since(key) > 0 {
			sum += c.dummies[i].logDensity(key, c.count, true) - c.dummies[i].logDensity(key, c.count, false)
		}
	}
	return sum + float64(float64(d.Strange)*logPDFEps)
}

func (c *gaussianClass) zerosLog(e river.EncoderFeatures, i int) float64 {
	d, shown := &c.dummies[i], e.Shown()
	if now := (zerosOf{c.count, len(shown)}); d.zerosFor != now {
		d.zeros, d.zerosFor = 0, now
		for _, key := range shown {
			d.zeros += d.logDensity(key, c.count, false)
		}
	}
	return d.zeros
}

func (m *gaussianNB) Unit() river.Unit { return river.LogLikelihood }

func (m *gaussianNB) Explain(f *river.Frame, add func(string, float64, []float64)) {
	each := byClass(m.classes, add)
	each("", 1, func(c *gaussianClass) float64 { return river.Log(float64(c.count) / float64(m.n)) })
	for i, n := range m.x.Numbers {
		x := f.Numbers[n.Slot].V
		each(n.Name, x, func(c *gaussianClass) float64 { return c.gaussians[i].logDensity(x) })
	}
	for i, e := range m.x.Encoders {
		d := &f.Dummies[e.Slot]
		own := func(c *gaussianClass, key int32) float64 {
			if e.Since(key) == 0 {
				return logPDFEps
			}
			return c.dummies[i].logDensity(key, c.count, true)
		}
		for _, key := range d.Known {
			each(e.Feature(key), 1, func(c *gaussianClass) float64 { return own(c, key) })
		}
		for k := range d.Fresh {
			each(e.FreshFeature(&d.Fresh[k]), 1, func(*gaussianClass) float64 { return logPDFEps })
		}
		each(e.Rest(), 0, func(c *gaussianClass) float64 {
			rest := c.dummiesLog(f, e, i) - float64(float64(len(d.Fresh))*logPDFEps)
			for _, key := range d.Known {
				rest -= own(c, key)
			}
			return rest
		})
	}
}

func (m *gaussianNB) Code(s *river.State) {
	s.U64(&m.n)
	n := s.Length(len(m.classes), 8)
	if s.Reading() {
		if n != s.Classes() {
			s.Fail()
			n = 0
		}
		m.classes = make([]gaussianClass, n)
	}
	for i := range m.classes {
		c := &m.classes[i]
		s.U64(&c.count)
		if s.Reading() {
			c.gaussians = make([]gaussian, len(m.x.Numbers))
			c.dummies = make([]gaussianDummies, len(m.x.Encoders))
		}
		for j := range c.gaussians {
			c.gaussians[j].mean.Code(s)
			s.F64(&c.gaussians[j].s)
		}
		for j := range c.dummies {
			s.U64s(&c.dummies[j].ones)
			s.U64s(&c.dummies[j].before)
		}
	}
}

func (m *gaussianNB) Report(r river.Report) {
	classCounts, gaussians := r.In("class_counts"), r.In("gaussians")
	for class := range m.classes {
		c, label := &m.classes[class], r.Labels[class]
		classCounts.Set(label, c.count)
		for i, n := range m.x.Numbers {
			g := &c.gaussians[i]
			gaussians.In(label).Set(n.Name, map[string]any{"n": g.mean.N, "mean": g.mean.Mean, "s": g.s})
		}
		for i, e := range m.x.Encoders {
			for _, key := range e.Shown() {
				n, k := float64(c.count-at(c.dummies[i].before, key)), float64(at(c.dummies[i].ones, key))
				if n > 0 {
					gaussians.In(label).Set(e.Feature(key), map[string]any{"n": n, "mean": k / n, "s": k * (n - k) / n})
				}
			}
		}
	}
}
