package linearmodel

import (
	"lockstep/model/river"
	"lockstep/model/river/optim"
)

// LogisticRegression is a linear model of the logarithm of a label's odds to be
// true.
//
// Source: Cox, The Regression Analysis of Binary Sequences, 1958.
var LogisticRegression = &river.Class{
	Name:    "LogisticRegression",
	Source:  "river.linear_model.LogisticRegression",
	Summary: "How likely a boolean label is true: a weighted sum of numbers and one-hot columns, through a sigmoid.",
	Task:    river.BinaryClassification,
	Params: append([]river.Param{
		optimizerParam(),
		{Name: "loss", Kind: river.Nested, Task: river.BinaryLoss,
			Default: river.Step{Class: optim.Log, Args: optim.Log.Defaults()}, Summary: "what is made small"},
		l2Param(),
	}, append(interceptParams(), clipParam())...),
	Build: func(b *river.Builder) {
		m := &logisticRegression{newLinear(b)}
		b.AddBinary(m, m.bound())
	},
}

type logisticRegression struct{ *linear }

func (m *logisticRegression) Learn(f *river.Frame) { m.learn(f, float64(f.Target)) }

func (m *logisticRegression) ProbaTrue(f *river.Frame) float64 { return sigmoid(m.raw(f)) }

func (m *logisticRegression) Unit() river.Unit { return river.Logit }

func (m *logisticRegression) Explain(f *river.Frame, add func(string, float64, []float64)) {
	explainLogit(&m.x, &m.weights, f, m.intercept, add)
}
