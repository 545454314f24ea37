package linearmodel

import (
	"lockstep/model/river"
	"lockstep/model/river/optim"
)

// SoftmaxRegression is a linear model of each class's score, of which the
// softmax are the probabilities. It has no intercept.
//
// Source: Bishop, Pattern Recognition and Machine Learning, section 4.3.4.
var SoftmaxRegression = &river.Class{
	Name:    "SoftmaxRegression",
	Source:  "river.linear_model.SoftmaxRegression",
	Summary: "Logistic regression of many classes: a weighted sum for each, without an intercept.",
	Task:    river.Classification,
	Params:  []river.Param{optimizerParam(), l2Param()},
	Build: func(b *river.Builder) {
		m := &softmaxRegression{
			x: b.Features(), l2: river.Arg[float64](b.Step(), "l2"),
			optimizer: optim.New(river.Arg[river.Step](b.Step(), "optimizer")),
		}
		b.AddClassifier(m, 8+b.Limits().Classes*(8+bytes(&m.x, m.optimizer.Memory())))
	},
}

type softmaxRegression struct {
	x         river.Features
	optimizer optim.Optimizer // of all classes: what it remembers is theirs
	l2        float64

	classes []softmaxClass
	proba   []float64 // scratch of Learn
}

type softmaxClass struct {
	n       uint64 // steps taken
	weights weights
}

func (m *softmaxRegression) Learn(f *river.Frame) {
	m.proba = river.Grow(m.proba, max(f.Target, len(m.classes)-1))
	m.Proba(f, m.proba[:len(m.classes)])
	for f.Target >= len(m.classes) {
		m.proba[len(m.classes)] = 0 // it was not known
		m.classes = append(m.classes, softmaxClass{weights: newWeights(&m.x)})
	}
	for class := range m.classes {
		c := &m.classes[class]
		g := min(max(m.proba[class], probaEps), 1-probaEps)
		if class == f.Target {
			g--
		}
		m.optimizer.Begin(c.n)
		c.weights.move(&m.x, f, m.optimizer, g, m.l2)
		c.n++
	}
}

// probaEps keeps probabilities from 0 and 1 where an error is measured.
const probaEps = 1e-15

func (m *softmaxRegression) Proba(f *river.Frame, p []float64) {
	most := 0.0
	for class := range p {
		p[class] = m.classes[class].weights.dot(&m.x, f)
		if class == 0 || p[class] > most {
			most = p[class]
		}
	}
	sum := 0.0
	for class := range p {
		p[class] = river.Exp(p[class] - most)
		sum += p[class]
	}
	for class := range p {
		p[class] /= sum
	}
}

func (m *softmaxRegression) Unit() river.Unit { return river.Logit }

func (m *softmaxRegression) Explain(f *river.Frame, add func(string, float64, []float64)) {
	add("", 1, make([]float64, len(m.classes)))
	byFeature := make([][]float64, 0, len(m.x.Numbers))
	for class := range m.classes {
		i := 0
		m.classes[class].weights.explain(&m.x, f, func(feature string, value, adds float64) {
			if class == 0 {
				byFeature = append(byFeature, make([]float64, len(m.classes)))
				add(feature, value, byFeature[i])
			}
			byFeature[i][class] = adds
			i++
		})
	}
}

func (m *softmaxRegression) Code(s *river.State) {
	if n := s.Length(len(m.classes), 8); s.Reading() {
		if m.classes = nil; n != s.Classes() {
			s.Fail()
			return
		}
		for range n {
			m.classes = append(m.classes, softmaxClass{weights: newWeights(&m.x)})
		}
	}
	for i := range m.classes {
		s.U64(&m.classes[i].n)
		m.classes[i].weights.code(s, &m.x, m.optimizer.Memory())
	}
}

func (m *softmaxRegression) Report(r river.Report) {
	for class := range m.classes {
		r.In("weights").Set(r.Labels[class], m.classes[class].weights.report(&m.x))
	}
}
