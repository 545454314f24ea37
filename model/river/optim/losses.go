package optim

import "lockstep/model/river"

// Log is the logarithmic loss, of a label that is a boolean.
var Log = &river.Class{
	Name:    "Log",
	Source:  "river.optim.losses.Log",
	Summary: "The logarithmic loss of a boolean label.",
	Task:    river.BinaryLoss,
	Params: []river.Param{
		river.FloatParam("weight_pos", 1, 0, 1e6, "what an event counts whose label is true"),
		river.FloatParam("weight_neg", 1, 0, 1e6, "what an event counts whose label is false"),
	},
	Make: func(s *river.Step) any {
		return logLoss{pos: river.Arg[float64](s, "weight_pos"), neg: river.Arg[float64](s, "weight_neg")}
	},
}

type logLoss struct{ pos, neg float64 }

func (l logLoss) Gradient(y, p float64) float64 {
	weight := l.pos
	if y = sign(y); y < 0 {
		weight = l.neg
	}
	switch z := float64(p * y); {
	case z > 18:
		return float64(weight*river.Exp(-z)) * -y
	case z < -18:
		return float64(weight * -y)
	default:
		return float64(weight*-y) / (river.Exp(z) + 1)
	}
}

// sign is -1 for false and 1 for true.
func sign(y float64) float64 { return float64(2*y) - 1 }

// Hinge is the loss of support vector machines, of a label that is a boolean.
var Hinge = &river.Class{
	Name:    "Hinge",
	Source:  "river.optim.losses.Hinge",
	Summary: "The loss of support vector machines (threshold 1) and of the perceptron (0), of a boolean label.",
	Task:    river.BinaryLoss,
	Params:  []river.Param{river.FloatParam("threshold", 1, 0, 1e6, "how clear a prediction must be to count as right")},
	Make:    func(s *river.Step) any { return HingeLoss(river.Arg[float64](s, "threshold")) },
}

// HingeLoss is a hinge loss, by its threshold.
type HingeLoss float64

// Gradient is 0 where the prediction is right and clear.
func (l HingeLoss) Gradient(y, p float64) float64 {
	if y = sign(y); float64(y*p) <= float64(l) {
		return -y
	}
	return 0
}

// Squared is the squared error.
var Squared = &river.Class{
	Name:    "Squared",
	Source:  "river.optim.losses.Squared",
	Summary: "The squared error: predicts the mean.",
	Task:    river.RegressionLoss,
	Make:    func(*river.Step) any { return squared{} },
}

type squared struct{}

func (squared) Gradient(y, p float64) float64 { return 2 * (p - y) }

// Absolute is the size of the error.
var Absolute = &river.Class{
	Name:    "Absolute",
	Source:  "river.optim.losses.Absolute",
	Summary: "The size of the error: predicts the median.",
	Task:    river.RegressionLoss,
	Make:    func(*river.Step) any { return absolute{} },
}

type absolute struct{}

func (absolute) Gradient(y, p float64) float64 {
	if p > y {
		return 1
	}
	return -1
}

// Huber is the squared error near 0, and the size of the error beyond.
//
// Source: Huber, Robust Estimation of a Location Parameter, 1964.
var Huber = &river.Class{
	Name:    "Huber",
	Source:  "river.optim.losses.Huber",
	Summary: "Squares small errors, and takes large ones as they are: outliers pull less.",
	Task:    river.RegressionLoss,
	Params: []river.Param{
		river.FloatParam("epsilon", 0.1, 0, 1e100, "up to which size errors are squared, in the label's unit"),
	},
	Make: func(s *river.Step) any { return huber(river.Arg[float64](s, "epsilon")) },
}

type huber float64

func (l huber) Gradient(y, p float64) float64 {
	return min(max(p-y, -float64(l)), float64(l))
}

// Quantile is the loss whose best prediction is a quantile.
//
// Source: Koenker and Bassett, Regression Quantiles, 1978.
var Quantile = &river.Class{
	Name:    "Quantile",
	Source:  "river.optim.losses.Quantile",
	Summary: "Predicts a quantile: alpha of the labels are below.",
	Task:    river.RegressionLoss,
	Params:  []river.Param{river.FloatParam("alpha", 0.5, 0, 1, "which quantile, 0.5 is the median")},
	Make:    func(s *river.Step) any { return quantile(river.Arg[float64](s, "alpha")) },
}

type quantile float64

func (l quantile) Gradient(y, p float64) float64 {
	if y < p {
		return 1 - float64(l)
	}
	return -float64(l)
}
