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
	Name:    "GaussianNB",
	Source:  "river.naive_bayes.GaussianNB",
	Summary: "Naive Bayes for numbers that are normally distributed within a class.",
	Task:    river.Classification,
	Build:   buildGaussianNB,
}

func buildGaussianNB(b *river.Builder) {
	x := b.Features()
	if len(x.Encoders) > 0 {
		b.Fail("one-hot dummies are not taken yet")
	}
	b.AddClassifier(&gaussianNB{x: x}, 8+8+b.Limits().Classes*(8+24*len(x.Numbers)))
}

type gaussianNB struct {
	x river.Features

	n       uint64
	classes []gaussianClass
}

type gaussianClass struct {
	count     uint64
	gaussians []gaussian // by number
}

type gaussian struct {
	mean stats.Mean
	s    float64 // sum of squared differences from the mean
}

// pdfEps keeps the logarithm of a density finite. River writes 10e-10.
const pdfEps = 10e-10

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

func (m *gaussianNB) Learn(f *river.Frame) {
	for f.Target >= len(m.classes) {
		m.classes = append(m.classes, gaussianClass{gaussians: make([]gaussian, len(m.x.Numbers))})
	}
	m.n++
	c := &m.classes[f.Target]
	c.count++
	for i := range m.x.Numbers {
		c.gaussians[i].learn(f.Numbers[m.x.Numbers[i].Slot].V)
	}
}

func (m *gaussianNB) Proba(f *river.Frame, p []float64) {
	for class := range p {
		c := &m.classes[class]
		sum := 0.0
		for i := range m.x.Numbers {
			sum += c.gaussians[i].logDensity(f.Numbers[m.x.Numbers[i].Slot].V)
		}
		p[class] = river.Log(float64(c.count)/float64(m.n)) + sum
	}
	normalize(p)
}

func (m *gaussianNB) Unit() river.Unit { return river.LogLikelihood }

func (m *gaussianNB) Explain(f *river.Frame, add func(string, float64, []float64)) {
	each := byClass(m.classes, add)
	each("", 1, func(c *gaussianClass) float64 { return river.Log(float64(c.count) / float64(m.n)) })
	for i, n := range m.x.Numbers {
		x := f.Numbers[n.Slot].V
		each(n.Name, x, func(c *gaussianClass) float64 { return c.gaussians[i].logDensity(x) })
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
		}
		for j := range c.gaussians {
			c.gaussians[j].mean.Code(s)
			s.F64(&c.gaussians[j].s)
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
	}
}
