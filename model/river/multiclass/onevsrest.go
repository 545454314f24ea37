// Package multiclass has River's ways to make a classifier of many classes of
// one of two.
package multiclass

import (
	"lockstep/model/river"
	"lockstep/model/river/linearmodel"
)

// OneVsRestClassifier has a model of its own for each class, which says how
// likely an event is of it.
//
// A class's model is made at the class's first event, and learns from there on.
//
// Source: Bishop, Pattern Recognition and Machine Learning, section 4.1.2.
var OneVsRestClassifier = &river.Class{
	Name:    "OneVsRestClassifier",
	Source:  "river.multiclass.OneVsRestClassifier",
	Summary: "A binary model for each class; their probabilities are divided by their sum.",
	Task:    river.Classification,
	Params: []river.Param{{Name: "classifier", Kind: river.Nested, Task: river.BinaryClassification,
		Default: river.Step{Class: linearmodel.LogisticRegression, Args: linearmodel.LogisticRegression.Defaults()},
		Summary: "the model that each class gets"}},
	Build: func(b *river.Builder) {
		fresh := b.Copies(river.Arg[river.Step](b.Step(), "classifier"))
		one := fresh()
		if len(one.Bounds) == 0 {
			return // it does not compile
		}
		b.AddClassifier(&oneVsRest{fresh: fresh}, 8+b.Limits().Classes*one.Bounds[0])
	},
}

type oneVsRest struct {
	fresh  func() *river.Program
	models []river.BinaryClassifier // by class
}

func (m *oneVsRest) Learn(f *river.Frame) {
	target := f.Target
	for target >= len(m.models) {
		m.models = append(m.models, m.fresh().Binary)
	}
	for class, model := range m.models {
		if f.Target = 0; class == target {
			f.Target = 1
		}
		model.Learn(f)
	}
	f.Target = target
}

func (m *oneVsRest) Proba(f *river.Frame, p []float64) {
	sum := 0.0
	for class, model := range m.models {
		p[class] = model.ProbaTrue(f)
		sum += p[class]
	}
	for class := range p {
		if sum == 0 {
			p[class] = 1 / float64(len(p))
		} else {
			p[class] /= sum
		}
	}
}

func (m *oneVsRest) Code(s *river.State) {
	if n := s.Length(len(m.models), 8); s.Reading() {
		if m.models = nil; n != s.Classes() {
			s.Fail()
			return
		}
		for range n {
			m.models = append(m.models, m.fresh().Binary)
		}
	}
	for _, model := range m.models {
		model.Code(s)
	}
}

func (m *oneVsRest) Report(r river.Report) {
	models := r.In("classifiers")
	for class, model := range m.models {
		model.Report(models.In(r.Labels[class]))
	}
}
