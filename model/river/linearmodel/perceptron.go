package linearmodel

import (
	"lockstep/model/river"
	"lockstep/model/river/optim"
)

// Perceptron learns from the events that it gets wrong alone.
//
// Source: Rosenblatt, The Perceptron, 1958.
var Perceptron = &river.Class{
	Name:    "Perceptron",
	Source:  "river.linear_model.Perceptron",
	Summary: "A linear model of a boolean label that learns from its mistakes alone.",
	Task:    river.BinaryClassification,
	Params:  []river.Param{l2Param(), clipParam()},
	Build: func(b *river.Builder) {
		x := b.Features()
		one := river.Step{Class: optim.SGD, Args: []any{1.0}}
		m := &logisticRegression{&linear{
			x: x, weights: newWeights(&x), optimizer: optim.New(one), loss: optim.HingeLoss(0), interceptLR: 1,
			l2: river.Arg[float64](b.Step(), "l2"), clip: river.Arg[float64](b.Step(), "clip_gradient"),
		}}
		b.AddBinary(m, m.bound())
	},
}
