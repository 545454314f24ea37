package optim

import "lockstep/model/river"

// AdaGrad divides each weight's step by the root of the sum of its squared
// gradients.
//
// Source: Duchi, Hazan and Singer, Adaptive Subgradient Methods, 2011.
var AdaGrad = &river.Class{
	Name:    "AdaGrad",
	Source:  "river.optim.AdaGrad",
	Summary: "Gradient descent whose steps get shorter with all gradients that a weight has had.",
	Task:    river.Optimization,
	Params:  []river.Param{lrParam(0.1), epsParam()},
	Make:    func(s *river.Step) any { return &adaGrad{rate: rateOf(s, "lr"), eps: river.Arg[float64](s, "eps")} },
}

type adaGrad struct {
	rate    rate
	eps, lr float64
}

func (o *adaGrad) Begin(n uint64) { o.lr = o.rate.at(n) }

func (o *adaGrad) Move(w *Weight, g float64) {
	w.M += float64(g * g)
	w.W -= float64(o.lr / river.Sqrt(w.M+o.eps) * g)
}

func (o *adaGrad) Memory() int { return 1 }
