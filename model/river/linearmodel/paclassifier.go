package linearmodel

import "lockstep/model/river"

// PAClassifier is passive-aggressive learning of a label that is a boolean.
//
// Source: Crammer et al., Online Passive-Aggressive Algorithms, 2006.
var PAClassifier = &river.Class{
	Name:    "PAClassifier",
	Source:  "river.linear_model.PAClassifier",
	Summary: "A linear model of a boolean label that changes just as much as an event needs to be clearly right.",
	Task:    river.BinaryClassification,
	Params:  paParams(),
	Build: func(b *river.Builder) {
		m := &paClassifier{newPassiveAggressive(b)}
		b.AddBinary(m, m.bound())
	},
}

type paClassifier struct{ *passiveAggressive }

func (m *paClassifier) Learn(f *river.Frame) {
	y := float64(2*f.Target - 1)
	loss := max(1-float64(y*m.raw(f)), 0)
	m.move(f, m.tau(f, loss)*y)
}

func (m *paClassifier) ProbaTrue(f *river.Frame) float64 { return sigmoid(m.raw(f)) }

func (m *paClassifier) Unit() river.Unit { return river.Logit }

func (m *paClassifier) Explain(f *river.Frame, add func(string, float64, []float64)) {
	explainLogit(&m.x, &m.weights, f, m.intercept, add)
}
