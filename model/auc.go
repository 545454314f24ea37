package model

import "lockstep/model/river"

// rocThresholds are the thresholds of the ROC curve, which River spreads evenly.
const rocThresholds = 10

// rocEps moves the first threshold below 0 and the last above 1, so that the
// curve begins and ends at its corners.
const rocEps = 1e-7

// rocCurve counts, for each threshold, how many events of each label had a
// greater probability of true.
//
// Source: river.metrics.ROCAUC with n_thresholds=10.
type rocCurve struct {
	events [2]uint64 // by label
	above  [rocThresholds][2]uint64
}

func (r *rocCurve) update(label int, proba float64) {
	r.events[label]++
	for i := range r.above {
		if proba > rocThreshold(i) {
			r.above[i][label]++
		}
	}
}

func rocThreshold(i int) float64 {
	switch i {
	case 0:
		return -rocEps
	case rocThresholds - 1:
		return 1 + rocEps
	default:
		return float64(i) / (rocThresholds - 1)
	}
}

// area is the area under the curve, by trapezoids.
func (r *rocCurve) area() float64 {
	sum := 0.0
	for i := range rocThresholds - 1 {
		here, next := r.rates(i), r.rates(i+1)
		sum += float64((here[0] - next[0]) * (here[1] + next[1]) / 2)
	}
	return sum
}

// rates are the shares of false and of true events above a threshold.
func (r *rocCurve) rates(i int) [2]float64 {
	return [2]float64{share(r.above[i][0], r.events[0]), share(r.above[i][1], r.events[1])}
}

func (r *rocCurve) code(c *river.State) {
	for i := range r.events {
		c.U64(&r.events[i])
	}
	for i := range r.above {
		c.U64(&r.above[i][0])
		c.U64(&r.above[i][1])
	}
}
