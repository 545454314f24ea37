package optim

import "lockstep/model/river"

// SGD is stochastic gradient descent: w -= lr·g.
//
// Source: Robbins and Monro, A Stochastic Approximation Method, 1951.
var SGD = &river.Class{
	Name:    "SGD",
	Source:  "river.optim.SGD",
	Summary: "Stochastic gradient descent.",
	Task:    river.Optimization,
	Params:  []river.Param{lrParam(0.01)},
	Make:    func(s *river.Step) any { return &sgd{rate: rateOf(s, "lr")} },
}

type sgd struct {
	rate rate
	lr   float64
}

func (o *sgd) Begin(n uint64)            { o.lr = o.rate.at(n) }
func (o *sgd) Move(w *Weight, g float64) { w.W -= float64(o.lr * g) }
func (o *sgd) Memory() int               { return 0 }
