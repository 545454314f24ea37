// Package linearmodel has River's linear models.
package linearmodel

import (
	"lockstep/model/river"
	"lockstep/model/river/optim"
)

// weights are one for each feature.
//
// A feature that an event does not have, where a number is null, counts nothing
// and learns nothing. A weight is at most MaxMagnitude in size: a model whose
// weights grow without end, which River takes to infinity and from there to
// NaN, stays there, and its predictions stay numbers.
type weights struct {
	numbers []optim.Weight   // by number
	dummies [][]optim.Weight // by encoder, by key; may be shorter than the keys
}

func newWeights(x *river.Features) weights {
	return weights{make([]optim.Weight, len(x.Numbers)), make([][]optim.Weight, len(x.Encoders))}
}

// bytes is how many bytes the state of weights takes at most.
func bytes(x *river.Features, memory int) int {
	return 8*(1+memory)*(len(x.Numbers)+x.MaxKeys()) + 8*len(x.Encoders)
}

// dot is the sum of all weights times their features.
func (w *weights) dot(x *river.Features, f *river.Frame) float64 {
	sum := 0.0
	for _, s := range x.Order {
		if !s.Dummies {
			if v := f.Numbers[x.Numbers[s.Index].Slot]; !v.Null {
				sum += float64(v.V * w.numbers[s.Index].W)
			}
			continue
		}
		of := w.dummies[s.Index]
		for _, key := range f.Dummies[x.Encoders[s.Index].Slot].Known {
			if int(key) < len(of) {
				sum += of[key].W
			}
		}
	}
	return sum
}

// move takes a step against the gradient g of the sum. l2 draws the weights of
// the event's features to 0.
//
// One-hot columns that are 0 are features as well, so with l2, or an optimizer
// that remembers, the weights of all of them move.
func (w *weights) move(x *river.Features, f *river.Frame, o optim.Optimizer, g, l2 float64) {
	for i := range x.Numbers {
		if v := f.Numbers[x.Numbers[i].Slot]; !v.Null {
			step(o, &w.numbers[i], float64(v.V*g), l2)
		}
	}
	for i := range x.Encoders {
		e := &x.Encoders[i]
		known := f.Dummies[e.Slot].Known
		for _, key := range known {
			w.dummies[i] = river.Grow(w.dummies[i], int(key))
			step(o, &w.dummies[i][key], g, l2)
		}
		if l2 == 0 && o.Memory() == 0 {
			continue
		}
		for _, key := range e.Shown() {
			if !contains(known, key) {
				w.dummies[i] = river.Grow(w.dummies[i], int(key))
				step(o, &w.dummies[i][key], 0, l2)
			}
		}
	}
}

// contains reports whether one of a few keys is this one.
func contains(keys []int32, key int32) bool {
	for _, k := range keys {
		if k == key {
			return true
		}
	}
	return false
}

func step(o optim.Optimizer, w *optim.Weight, g, l2 float64) {
	if l2 != 0 {
		g += float64(l2 * w.W)
	}
	o.Move(w, g)
	w.W = bounded(w.W)
}

// bounded is v, or the bound that it is beyond.
func bounded(v float64) float64 { return min(max(v, -river.MaxMagnitude), river.MaxMagnitude) }

func (w *weights) code(s *river.State, x *river.Features, memory int) {
	for i := range w.numbers {
		w.numbers[i].Code(s, memory)
	}
	for i := range w.dummies {
		if optim.CodeWeights(s, &w.dummies[i], memory); len(w.dummies[i]) > x.Encoders[i].MaxKeys() {
			s.Fail()
			w.dummies[i] = nil
		}
	}
}

// report is each weight by its feature's name.
func (w *weights) report(x *river.Features) map[string]any {
	out := map[string]any{}
	for i := range w.numbers {
		out[x.Numbers[i].Name] = w.numbers[i].W
	}
	for i := range w.dummies {
		for _, key := range x.Encoders[i].Shown() {
			value := 0.0
			if int(key) < len(w.dummies[i]) {
				value = w.dummies[i][key].W
			}
			out[x.Encoders[i].Feature(key)] = value
		}
	}
	return out
}

// explain calls add with what each of the event's features adds to the sum.
func (w *weights) explain(x *river.Features, f *river.Frame, add func(feature string, value, adds float64)) {
	for i := range x.Numbers {
		if v := f.Numbers[x.Numbers[i].Slot]; !v.Null {
			add(x.Numbers[i].Name, v.V, v.V*w.numbers[i].W)
		}
	}
	for i := range x.Encoders {
		for _, key := range f.Dummies[x.Encoders[i].Slot].Known {
			adds := 0.0
			if int(key) < len(w.dummies[i]) {
				adds = w.dummies[i][key].W
			}
			add(x.Encoders[i].Feature(key), 1, adds)
		}
	}
}

// linear is a linear model with one output: the weighted sum of the features,
// and an intercept.
//
// Source: river.linear_model.base.GLM.
type linear struct {
	x           river.Features
	optimizer   optim.Optimizer
	loss        optim.Loss
	l2, clip    float64
	interceptLR float64

	n         uint64
	intercept float64
	weights   weights
}

// The parameters that linear models have in common, with River's names.
func l2Param() river.Param {
	return river.FloatParam("l2", 0, 0, 1e6, "how strongly weights are drawn to 0")
}

func clipParam() river.Param {
	return river.FloatParam("clip_gradient", 1e12, 0, 1e12, "the most that the loss's derivative counts")
}

func optimizerParam() river.Param {
	return river.Param{Name: "optimizer", Kind: river.Nested, Task: river.Optimization,
		Default: river.Step{Class: optim.SGD, Args: optim.SGD.Defaults()}, Summary: "how the weights learn"}
}

func interceptParams() []river.Param {
	return []river.Param{
		river.FloatParam("intercept_init", 0, -1e100, 1e100, "the intercept before anything is learned"),
		river.FloatParam("intercept_lr", 0.01, 0, 1e6, "the learning rate of the intercept"),
	}
}

// newLinear makes what a step of LogisticRegression or LinearRegression
// declares.
func newLinear(b *river.Builder) *linear {
	s, x := b.Step(), b.Features()
	return &linear{
		x: x, weights: newWeights(&x),
		optimizer: optim.New(river.Arg[river.Step](s, "optimizer")), loss: optim.NewLoss(river.Arg[river.Step](s, "loss")),
		l2: river.Arg[float64](s, "l2"), clip: river.Arg[float64](s, "clip_gradient"),
		interceptLR: river.Arg[float64](s, "intercept_lr"), intercept: river.Arg[float64](s, "intercept_init"),
	}
}

// bound is how many bytes the state takes at most.
func (m *linear) bound() int { return 8 + 8 + bytes(&m.x, m.optimizer.Memory()) }

// raw is the weighted sum with the intercept.
func (m *linear) raw(f *river.Frame) float64 { return m.weights.dot(&m.x, f) + m.intercept }

// learn takes one step. Of a boolean y is 0 or 1.
func (m *linear) learn(f *river.Frame, y float64) {
	g := min(max(m.loss.Gradient(y, m.raw(f)), -m.clip), m.clip)
	m.intercept = bounded(m.intercept - float64(m.interceptLR*g))
	m.optimizer.Begin(m.n)
	m.weights.move(&m.x, f, m.optimizer, g, m.l2)
	m.n++
}

// Code codes the state; see river.Component.
func (m *linear) Code(s *river.State) {
	s.U64(&m.n)
	s.F64(&m.intercept)
	m.weights.code(s, &m.x, m.optimizer.Memory())
}

// Report has the names of River's attributes.
func (m *linear) Report(r river.Report) {
	r.Set("intercept", m.intercept)
	r.Set("n_iterations", m.n)
	r.Set("weights", m.weights.report(&m.x))
}

// sigmoid is 1/(1+e^-x), and 0 or 1 where little is missing.
//
// Source: river.utils.math.sigmoid.
func sigmoid(x float64) float64 {
	switch {
	case x < -30:
		return 0
	case x > 30:
		return 1
	}
	return 1 / (1 + river.Exp(-x))
}

// explainLogit explains a binary model: what is added to the logit of true.
func explainLogit(
	x *river.Features, w *weights, f *river.Frame, intercept float64,
	add func(string, float64, []float64),
) {
	add("", 1, []float64{0, intercept})
	w.explain(x, f, func(feature string, value, adds float64) { add(feature, value, []float64{0, adds}) })
}
