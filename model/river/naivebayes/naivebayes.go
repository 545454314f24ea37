// Package naivebayes has River's naive Bayes classifiers.
package naivebayes

import (
	"math"

	"lockstep/model/river"
)

// normalize turns joint log-likelihoods into probabilities, in place, as
// scipy.special.logsumexp and River do: they are not normalised again, so their
// sum is only near 1.
func normalize(jll []float64) {
	most := math.Inf(-1)
	for _, v := range jll {
		if v > most {
			most = v
		}
	}
	ties, sum := 0.0, 0.0
	for _, v := range jll {
		if v == most {
			ties++
		} else {
			sum += river.Exp(v - most)
		}
	}
	lse := river.Log1p(sum / ties)
	if ties > 1 { // the logarithm of 1 adds nothing
		lse += river.Log(ties)
	}
	lse += most
	for i, v := range jll {
		jll[i] = river.Exp(v - lse)
	}
}

// byClass returns a function that adds a feature, with what it gives to the
// log-likelihood of each class.
func byClass[C any](
	classes []C,
	add func(string, float64, []float64),
) func(feature string, value float64, of func(c *C) float64) {
	return func(feature string, value float64, of func(c *C) float64) {
		out := make([]float64, len(classes))
		for class := range out {
			out[class] = of(&classes[class])
		}
		add(feature, value, out)
	}
}
