// Package optim has River's optimizers, schedulers and losses: parameters of
// the linear models.
package optim

import "lockstep/model/river"

// Weight is a weight, with what an optimizer remembers of it.
type Weight struct {
	W    float64
	M, V float64 // the optimizer's, of which it uses the first Memory
}

// Code codes a weight of which the optimizer remembers so many doubles.
func (w *Weight) Code(s *river.State, memory int) {
	s.F64(&w.W)
	if memory > 0 {
		s.F64(&w.M)
	}
	if memory > 1 {
		s.F64(&w.V)
	}
}

// CodeWeights codes a list of weights.
func CodeWeights(s *river.State, weights *[]Weight, memory int) {
	n := s.Length(len(*weights), 8*(1+memory))
	if s.Reading() {
		*weights = make([]Weight, n)
	}
	for i := range *weights {
		(*weights)[i].Code(s, memory)
	}
}

// Optimizer moves weights against a gradient. It keeps nothing between two
// steps but what is in the weights.
type Optimizer interface {
	// Begin begins a step, of which n came before.
	Begin(n uint64)
	// Move moves one weight against its gradient.
	Move(w *Weight, gradient float64)
	// Memory is how many doubles it remembers of each weight, 0 to 2. With some,
	// a gradient of 0 moves a weight, too.
	Memory() int
}

// New makes the optimizer that a step declares.
func New(s river.Step) Optimizer { return s.Class.Make(&s).(Optimizer) }

// Loss is what a model tries to make small.
type Loss interface {
	// Gradient is the derivative by the prediction p, the raw output of a linear
	// model. Of a label that is a boolean, y is 0 or 1.
	Gradient(y, p float64) float64
}

// NewLoss makes the loss that a step declares.
func NewLoss(s river.Step) Loss { return s.Class.Make(&s).(Loss) }

// rate is how far a step goes, by how many steps came before.
type rate interface{ at(n uint64) float64 }

type constant float64

func (c constant) at(uint64) float64 { return float64(c) }

// rateOf is an argument that is a number or a scheduler.
func rateOf(s *river.Step, name string) rate {
	switch v := river.Arg[any](s, name).(type) {
	case river.Step:
		return v.Class.Make(&v).(rate)
	default:
		return constant(v.(float64))
	}
}

// lrParam declares a learning rate.
func lrParam(value float64) river.Param {
	p := river.FloatParam("lr", value, 0, 1e6, "the learning rate: how far a step goes, or a scheduler")
	p.Task = river.Scheduling
	return p
}

func epsParam() river.Param {
	return river.FloatParam("eps", 1e-8, 1e-100, 1, "added to a divisor, so that it is not 0")
}

// power is b to the n.
func power(b float64, n uint64) float64 {
	out := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			out *= b
		}
		b *= b
	}
	return out
}
