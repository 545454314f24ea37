package preprocessing

import "lockstep/model/river"

// StandardScaler scales numbers to mean 0 and variance 1.
//
// Source: Welford's running variance, with ddof 0.
var StandardScaler = &river.Class{
	Name:   "StandardScaler",
	Source: "river.preprocessing.StandardScaler",
	Summary: "Takes the running mean from each number, and divides it by the running standard deviation (0 where that " +
		"is 0).",
	Task:   river.Transformation,
	Params: []river.Param{river.BoolParam("with_std", true, "divide by the standard deviation")},
	Build:  buildStandardScaler,
}

func buildStandardScaler(b *river.Builder) {
	withStd := river.Arg[bool](b.Step(), "with_std")
	eachNumber(b, func(col *river.Column, in, out int) (river.Transformer, int) {
		// A scaled value lies on both sides of 0. Without its deviation it
		// stays within the column's width.
		col.Min, col.Max = -river.MaxMagnitude, river.MaxMagnitude
		return &standardScaler{name: col.Name, in: in, out: out, withStd: withStd}, 24
	})
}

// standardScaler is a StandardScaler on one column.
type standardScaler struct {
	name     string
	in, out  int
	withStd  bool
	n        uint64
	mean     float64
	variance float64
}

func (t *standardScaler) Learn(f *river.Frame) {
	x := f.Numbers[t.in].V
	t.n++
	n := float64(t.n)
	old := t.mean
	t.mean += (x - old) / n
	if t.withStd {
		t.variance += (float64((x-old)*(x-t.mean)) - t.variance) / n
	}
}

func (t *standardScaler) Transform(f *river.Frame) {
	x := f.Numbers[t.in].V - t.mean
	if t.withStd {
		x = safeDiv(x, river.Sqrt(t.variance))
	}
	f.Numbers[t.out] = river.Number{V: x}
}

// safeDiv is river.preprocessing.scale.safe_div: 0 where b is 0.
func safeDiv(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (t *standardScaler) Code(s *river.State) {
	s.U64(&t.n)
	s.F64(&t.mean)
	s.F64(&t.variance)
}

func (t *standardScaler) Report(r river.Report) {
	r.In("scaler").Set(t.name, map[string]any{"n": t.n, "mean": t.mean, "var": t.variance})
}
