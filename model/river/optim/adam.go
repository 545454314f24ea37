package optim

import "lockstep/model/river"

// Adam scales each weight's step by running moments of its gradient.
//
// Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014.
var Adam = &river.Class{
	Name:    "Adam",
	Source:  "river.optim.Adam",
	Summary: "Gradient descent whose steps follow running means of each weight's gradient and of its square.",
	Task:    river.Optimization,
	Params: []river.Param{
		lrParam(0.1),
		river.FloatParam("beta_1", 0.9, 0, 1-0x1p-30, "how much of the running mean of the gradient stays"),
		river.FloatParam("beta_2", 0.999, 0, 1-0x1p-30, "how much of the running mean of its square stays"),
		epsParam(),
	},
	Make: func(s *river.Step) any {
		return &adam{
			rate: rateOf(s, "lr"), eps: river.Arg[float64](s, "eps"),
			beta1: river.Arg[float64](s, "beta_1"), beta2: river.Arg[float64](s, "beta_2"),
		}
	},
}

type adam struct {
	rate              rate
	beta1, beta2, eps float64
	step              float64
}

func (o *adam) Begin(n uint64) {
	o.step = o.rate.at(n) * river.Sqrt(1-power(o.beta2, n+1)) / (1 - power(o.beta1, n+1))
}

func (o *adam) Move(w *Weight, g float64) {
	w.M = float64(o.beta1*w.M) + float64((1-o.beta1)*g)
	w.V = float64(o.beta2*w.V) + float64((1-o.beta2)*float64(g*g))
	w.W -= float64(o.step*w.M) / (river.Sqrt(w.V) + o.eps)
}

func (o *adam) Memory() int { return 2 }
