package optim

import "lockstep/model/river"

// RMSProp divides each weight's step by the root of a running mean of its
// squared gradient.
//
// Source: Tieleman and Hinton, Lecture 6.5, Neural Networks for Machine
// Learning, 2012.
var RMSProp = &river.Class{
	Name:    "RMSProp",
	Source:  "river.optim.RMSProp",
	Summary: "Gradient descent whose steps follow a running mean of each weight's squared gradient.",
	Task:    river.Optimization,
	Params: []river.Param{
		lrParam(0.1), river.FloatParam("rho", 0.9, 0, 1-0x1p-30, "how much of the running mean stays"), epsParam(),
	},
	Make: func(s *river.Step) any {
		return &rmsProp{rate: rateOf(s, "lr"), rho: river.Arg[float64](s, "rho"), eps: river.Arg[float64](s, "eps")}
	},
}

type rmsProp struct {
	rate         rate
	rho, eps, lr float64
}

func (o *rmsProp) Begin(n uint64) { o.lr = o.rate.at(n) }

func (o *rmsProp) Move(w *Weight, g float64) {
	w.M = float64(o.rho*w.M) + float64((1-o.rho)*float64(g*g))
	w.W -= float64(o.lr / river.Sqrt(w.M+o.eps) * g)
}

func (o *rmsProp) Memory() int { return 1 }
