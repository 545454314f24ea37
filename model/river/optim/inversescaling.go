package optim

import "lockstep/model/river"

// InverseScaling is a learning rate that falls with a power of the steps taken.
//
// Source: Pedregosa et al., scikit-learn's SGDClassifier, learning_rate
// "invscaling".
var InverseScaling = &river.Class{
	Name:    "InverseScaling",
	Source:  "river.optim.schedulers.InverseScaling",
	Summary: "A learning rate divided by a power of the number of steps, this one included.",
	Task:    river.Scheduling,
	Params: []river.Param{
		{Name: "learning_rate", Kind: river.Float, Min: 0, Max: 1e6, Summary: "the rate of the first step"},
		river.FloatParam("power", 0.5, 0, 10, "by how much the rate falls"),
	},
	Make: func(s *river.Step) any {
		return &inverseScaling{first: river.Arg[float64](s, "learning_rate"), power: river.Arg[float64](s, "power")}
	},
}

type inverseScaling struct{ first, power float64 }

func (r *inverseScaling) at(n uint64) float64 {
	return r.first / river.Exp(float64(r.power*river.Log(float64(n+1))))
}
