package linearmodel

import "lockstep/model/river"

// PARegressor is passive-aggressive learning of a number.
//
// Source: Crammer et al., Online Passive-Aggressive Algorithms, 2006. River
// measures the loss against 2y-1, as if the label were a boolean; so does this,
// for its numbers are River's.
var PARegressor = &river.Class{
	Name:    "PARegressor",
	Source:  "river.linear_model.PARegressor",
	Summary: "A linear model of a number that changes just as much as an event needs to be right within eps.",
	Task:    river.Regression,
	Params:  paParams(river.FloatParam("eps", 0.1, 0, 1e100, "which errors count as right, in the label's unit")),
	Build: func(b *river.Builder) {
		m := &paRegressor{newPassiveAggressive(b), river.Arg[float64](b.Step(), "eps")}
		b.FiniteTarget()
		b.AddRegressor(m, m.bound())
	},
}

type paRegressor struct {
	*passiveAggressive
	eps float64
}

func (m *paRegressor) Learn(f *river.Frame) {
	p := m.raw(f)
	loss := p - (float64(2*f.Y) - 1)
	if loss < 0 {
		loss = -loss
	}
	step := m.tau(f, max(loss-m.eps, 0))
	switch {
	case f.Y < p:
		step = -step
	case f.Y == p:
		step = 0
	}
	m.move(f, step)
}

func (m *paRegressor) Predict(f *river.Frame) float64 { return bounded(m.raw(f)) }

func (m *paRegressor) Unit() river.Unit { return river.LabelUnit }

func (m *paRegressor) Explain(f *river.Frame, add func(string, float64, []float64)) {
	explainSum(&m.x, &m.weights, f, m.intercept, add)
}
