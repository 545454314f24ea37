package linearmodel

import "lockstep/model/river"

// passiveAggressive is a linear model that changes just as much as an event
// needs to be right, and not at all if it is.
//
// Source: Crammer et al., Online Passive-Aggressive Algorithms, 2006.
type passiveAggressive struct {
	x         river.Features
	c         float64
	mode      int
	withConst bool // it has an intercept

	intercept float64
	weights   weights
}

func paParams(more ...river.Param) []river.Param {
	params := []river.Param{
		river.FloatParam(
			"C", 1, 1e-9, 1e9,
			"how aggressive: the most that an event may change (mode 1), or how little a large change costs (mode 2)",
		),
		river.WholeParam("mode", 1, 0, 2, "0: each event is made right; 1: within C; 2: softened by C"),
	}
	return append(append(params, more...), river.BoolParam("learn_intercept", true, "have an intercept, and learn it"))
}

func newPassiveAggressive(b *river.Builder) *passiveAggressive {
	s, x := b.Step(), b.Features()
	return &passiveAggressive{
		x: x, weights: newWeights(&x), c: river.Arg[float64](s, "C"), mode: int(river.Arg[float64](s, "mode")),
		withConst: river.Arg[bool](s, "learn_intercept"),
	}
}

func (m *passiveAggressive) bound() int { return 8 + bytes(&m.x, 0) }

func (m *passiveAggressive) raw(f *river.Frame) float64 { return m.weights.dot(&m.x, f) + m.intercept }

// tau is how large the step is for a loss.
func (m *passiveAggressive) tau(f *river.Frame, loss float64) float64 {
	norm := m.norm(f)
	switch {
	case m.mode == 2:
		return loss / (norm + 0.5/m.c)
	case norm == 0:
		return 0
	case m.mode == 1:
		return min(m.c, loss/norm)
	default:
		return loss / norm
	}
}

// norm is the sum of the features' squares.
func (m *passiveAggressive) norm(f *river.Frame) float64 {
	sum := 0.0
	for i := range m.x.Numbers {
		if v := f.Numbers[m.x.Numbers[i].Slot]; !v.Null {
			sum += float64(v.V * v.V)
		}
	}
	for i := range m.x.Encoders {
		sum += float64(len(f.Dummies[m.x.Encoders[i].Slot].Known))
	}
	return sum
}

// move adds the step times each feature to its weight.
func (m *passiveAggressive) move(f *river.Frame, step float64) {
	for i := range m.x.Numbers {
		if v := f.Numbers[m.x.Numbers[i].Slot]; !v.Null {
			m.weights.numbers[i].W = bounded(m.weights.numbers[i].W + float64(step*v.V))
		}
	}
	for i := range m.x.Encoders {
		for _, key := range f.Dummies[m.x.Encoders[i].Slot].Known {
			m.weights.dummies[i] = river.Grow(m.weights.dummies[i], int(key))
			w := &m.weights.dummies[i][key]
			w.W = bounded(w.W + step)
		}
	}
	if m.withConst {
		m.intercept = bounded(m.intercept + step)
	}
}

// Code codes the state; see river.Component.
func (m *passiveAggressive) Code(s *river.State) {
	s.F64(&m.intercept)
	m.weights.code(s, &m.x, 0)
}

// Report has the names of River's attributes.
func (m *passiveAggressive) Report(r river.Report) {
	r.Set("intercept", m.intercept)
	r.Set("weights", m.weights.report(&m.x))
}
