package linearmodel

import (
	"lockstep/model/river"
	"lockstep/model/river/optim"
)

// LinearRegression predicts a number by a weighted sum.
//
// Source: Bottou, Large-Scale Machine Learning with Stochastic Gradient
// Descent, 2010.
var LinearRegression = &river.Class{
	Name:    "LinearRegression",
	Source:  "river.linear_model.LinearRegression",
	Summary: "A number, by a weighted sum of numbers and one-hot columns.",
	Task:    river.Regression,
	Params: append([]river.Param{
		optimizerParam(),
		{Name: "loss", Kind: river.Nested, Task: river.RegressionLoss,
			Default: river.Step{Class: optim.Squared, Args: optim.Squared.Defaults()}, Summary: "what is made small"},
		l2Param(),
	}, append(interceptParams(), clipParam())...),
	Build: func(b *river.Builder) {
		m := &linearRegression{newLinear(b)}
		b.FiniteTarget()
		b.AddRegressor(m, m.bound())
	},
}

type linearRegression struct{ *linear }

func (m *linearRegression) Learn(f *river.Frame) { m.learn(f, f.Y) }

func (m *linearRegression) Predict(f *river.Frame) float64 { return bounded(m.raw(f)) }

func (m *linearRegression) Unit() river.Unit { return river.LabelUnit }

func (m *linearRegression) Explain(f *river.Frame, add func(string, float64, []float64)) {
	explainSum(&m.x, &m.weights, f, m.intercept, add)
}

// explainSum explains a number: what is added to it.
func explainSum(
	x *river.Features, w *weights, f *river.Frame, intercept float64,
	add func(string, float64, []float64),
) {
	add("", 1, []float64{intercept})
	w.explain(x, f, func(feature string, value, adds float64) { add(feature, value, []float64{adds}) })
}
