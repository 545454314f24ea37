package stats

import "lockstep/model/river"

// Univariate is a running statistic of one value.
type Univariate interface {
	Update(x float64)
	// Get is finite: before any value it is 0, where River has an infinity.
	Get() float64
	Code(s *river.State)
}

// Statistic is what a class of this package stands for: see river.Class.Make.
type Statistic struct {
	Name  string // as River calls it in the names of features
	New   func() Univariate
	Bytes int // of one's state
	// Range is what its value can be, of values from least to most.
	Range func(least, most float64) (float64, float64)
}

// Of is the statistic that a step declares.
func Of(s river.Step) Statistic { return s.Class.Make(&s).(Statistic) }

// within is the range of what lies among the values, or is 0.
func within(least, most float64) (float64, float64) { return min(least, 0), max(most, 0) }

// Get is the mean, 0 before any value.
func (m *Mean) Get() float64 { return m.Mean }

// MeanClass is Mean in a spec.
var MeanClass = &river.Class{
	Name:    "Mean",
	Source:  "river.stats.Mean",
	Summary: "The mean, 0 before any value.",
	Task:    river.Statistical,
	Make: func(*river.Step) any {
		return Statistic{"mean", func() Univariate { return &Mean{} }, 16, within}
	},
}

// Var is a running variance, by Welford's method.
//
// Source: river.stats.Var.
type Var struct {
	ddof float64
	mean Mean
	s    float64 // sum of squared differences from the mean
}

// VarClass is Var in a spec.
var VarClass = &river.Class{
	Name:    "Var",
	Source:  "river.stats.Var",
	Summary: "The variance, 0 before more than ddof values.",
	Task:    river.Statistical,
	Params: []river.Param{
		river.WholeParam("ddof", 1, 0, 1000, "what is taken from the number of values in the divisor"),
	},
	Make: func(s *river.Step) any {
		ddof := river.Arg[float64](s, "ddof")
		return Statistic{
			"var",
			func() Univariate { return &Var{ddof: ddof} },
			24,
			func(float64, float64) (float64, float64) {
				return 0, river.MaxMagnitude
			},
		}
	},
}

// Update takes one more value.
func (v *Var) Update(x float64) {
	old := v.mean.Mean
	v.mean.Update(x)
	v.s += float64((x - old) * (x - v.mean.Mean))
}

// Get is the variance.
func (v *Var) Get() float64 {
	if n := float64(v.mean.N); n > v.ddof {
		return min(v.s/(n-v.ddof), river.MaxMagnitude)
	}
	return 0
}

// Code codes the state; see river.State. It takes 24 bytes.
func (v *Var) Code(s *river.State) {
	v.mean.Code(s)
	s.F64(&v.s)
}

// EWMean is a mean in which older values count less and less.
//
// Source: river.stats.EWMean.
type EWMean struct {
	fading float64
	n      uint64
	mean   float64
}

// EWMeanClass is EWMean in a spec.
var EWMeanClass = &river.Class{
	Name:    "EWMean",
	Source:  "river.stats.EWMean",
	Summary: "A mean in which older values count less and less, 0 before any.",
	Task:    river.Statistical,
	Params:  []river.Param{river.FloatParam("fading_factor", 0.5, 0, 1, "how much the latest value counts")},
	Make: func(s *river.Step) any {
		fading := river.Arg[float64](s, "fading_factor")
		return Statistic{"ewm_" + pythonFloat(fading), func() Univariate { return &EWMean{fading: fading} }, 16, within}
	},
}

// pythonFloat is a number as Python spells a float.
func pythonFloat(v float64) string {
	text := river.Shortest(v)
	if v == float64(int64(v)) {
		text += ".0"
	}
	return text
}

// Update takes one more value.
func (m *EWMean) Update(x float64) {
	if m.n++; m.n == 1 {
		m.mean = x
		return
	}
	m.mean = float64(m.fading*x) + float64((1-m.fading)*m.mean)
}

// Get is the mean.
func (m *EWMean) Get() float64 { return m.mean }

// Code codes the state; see river.State. It takes 16 bytes.
func (m *EWMean) Code(s *river.State) {
	s.U64(&m.n)
	s.F64(&m.mean)
}

// count is how many values there were.
type count struct{ n uint64 }

// CountClass is how many values there were, in a spec.
var CountClass = &river.Class{
	Name: "Count", Source: "river.stats.Count", Summary: "How many values there were.", Task: river.Statistical,
	Make: func(*river.Step) any {
		return Statistic{
			"count",
			func() Univariate { return &count{} },
			8,
			func(float64, float64) (float64, float64) { return 0, 1 << 53 },
		}
	},
}

func (c *count) Update(float64)      { c.n++ }
func (c *count) Get() float64        { return float64(c.n) }
func (c *count) Code(s *river.State) { s.U64(&c.n) }

// sum is the sum of the values.
type sum struct{ v float64 }

// SumClass is the sum of the values, in a spec.
var SumClass = &river.Class{
	Name: "Sum", Source: "river.stats.Sum", Summary: "The sum of the values.", Task: river.Statistical,
	Make: func(*river.Step) any {
		return Statistic{"sum", func() Univariate { return &sum{} }, 8, func(float64, float64) (float64, float64) {
			return -river.MaxMagnitude, river.MaxMagnitude
		}}
	},
}

func (t *sum) Update(x float64)    { t.v = min(max(t.v+x, -river.MaxMagnitude), river.MaxMagnitude) }
func (t *sum) Get() float64        { return t.v }
func (t *sum) Code(s *river.State) { s.F64(&t.v) }
