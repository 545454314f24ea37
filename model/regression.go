package model

import (
	"math"

	"lockstep/model/river"
	"lockstep/model/river/stats"
)

// regression scores predictions of numbers.
//
// Source: river.metrics.MAE, RMSE, R2 and river.utils.Rolling.
type regression struct {
	absolute stats.Mean // of the error's size, in the label's unit
	squared  stats.Mean // of its square
	residual float64    // sum of squared errors
	labels   stats.Mean
	spread   float64                // sum of squared differences of the labels from their mean
	window   [rollingWindow]float64 // errors, label - prediction
}

func (r *regression) update(scored uint64, label, predicted float64) {
	e := label - predicted
	r.window[scored%rollingWindow] = e
	r.absolute.Update(math.Abs(e))
	r.squared.Update(float64(e * e))
	r.residual += float64(e * e)
	old := r.labels.Mean
	r.labels.Update(label)
	r.spread += float64((label - old) * (label - r.labels.Mean))
}

func (r *regression) code(c *river.State) {
	r.absolute.Code(c)
	r.squared.Code(c)
	c.F64(&r.residual)
	r.labels.Code(c)
	c.F64(&r.spread)
	for i := range r.window {
		c.F64(&r.window[i])
	}
}

// Kind is the label's type. Of a number MAE, RMSE and R2 have a meaning, of a
// boolean ROCAUC too, and of all but a number accuracy, log-loss, F1 and the
// like.
func (m *Metrics) Kind() FieldType { return m.kind }

// MAE is the mean size of the error, in the label's unit.
func (m *Metrics) MAE() float64 { return m.errors.absolute.Mean }

// RMSE is the root of the mean squared error, in the label's unit.
func (m *Metrics) RMSE() float64 { return river.Sqrt(m.errors.squared.Mean) }

// R2 is the share of the labels' variance that the predictions explain; 0
// before two events, and where the labels do not vary.
func (m *Metrics) R2() float64 {
	if m.scored < 2 || m.errors.spread == 0 {
		return 0
	}
	return 1 - m.errors.residual/m.errors.spread
}

// RollingErrors gives MAE and RMSE over the last n events, at most 100.
func (m *Metrics) RollingErrors() (n int, mae, rmse float64) {
	n = int(min(m.scored, rollingWindow))
	if n == 0 {
		return 0, 0, 0
	}
	for _, e := range m.errors.window[:n] {
		mae += math.Abs(e)
		rmse += float64(e * e)
	}
	return n, mae / float64(n), river.Sqrt(rmse / float64(n))
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
