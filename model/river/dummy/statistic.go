package dummy

import (
	"lockstep/model/river"
	"lockstep/model/river/stats"
)

// StatisticRegressor predicts a statistic of the labels: their mean.
//
// Source: river.dummy.StatisticRegressor.
var StatisticRegressor = &river.Class{
	Name:    "StatisticRegressor",
	Source:  "river.dummy.StatisticRegressor",
	Summary: "Predicts a statistic of the labels, such as their mean: a baseline.",
	Task:    river.Regression,
	Params: []river.Param{{
		Name: "statistic", Kind: river.Nested, Task: river.Statistical,
		Default: river.Step{Class: stats.MeanClass, Args: stats.MeanClass.Defaults()}, Summary: "of the labels",
	}},
	Build: func(b *river.Builder) {
		of := stats.Of(river.Arg[river.Step](b.Step(), "statistic"))
		b.FiniteTarget()
		b.AddRegressor(&statistic{of.New()}, of.Bytes)
	},
}

type statistic struct{ of stats.Univariate }

func (m *statistic) Learn(f *river.Frame)         { m.of.Update(f.Y) }
func (m *statistic) Predict(*river.Frame) float64 { return m.of.Get() }
func (m *statistic) Code(s *river.State)          { m.of.Code(s) }
func (m *statistic) Report(r river.Report)        { r.Set("statistic", m.of.Get()) }
func (m *statistic) Unit() river.Unit             { return river.LabelUnit }
func (m *statistic) Explain(_ *river.Frame, add func(string, float64, []float64)) {
	add("", 1, []float64{m.of.Get()})
}
