package preprocessing

import "lockstep/model/river"

// MaxAbsScaler divides numbers by the greatest size learned.
//
// Source: river.preprocessing.MaxAbsScaler.
var MaxAbsScaler = &river.Class{
	Name:    "MaxAbsScaler",
	Source:  "river.preprocessing.MaxAbsScaler",
	Summary: "Divides each number by the greatest size learned, to -1 to 1; 0 stays 0.",
	Task:    river.Transformation,
	Build: func(b *river.Builder) {
		eachNumber(b, func(col *river.Column, in, out int) (river.Transformer, int) {
			// A prediction may lie far outside of what was learned.
			least := 0.0
			if col.Min < 0 {
				least = -river.MaxMagnitude
			}
			col.Min, col.Max = least, river.MaxMagnitude
			return &maxAbsScaler{name: col.Name, in: in, out: out}, 8
		})
	},
}

type maxAbsScaler struct {
	name    string
	in, out int
	most    float64
}

func (t *maxAbsScaler) Learn(f *river.Frame) {
	x := f.Numbers[t.in].V
	t.most = max(t.most, x, -x)
}

func (t *maxAbsScaler) Transform(f *river.Frame) {
	f.Numbers[t.out] = river.Number{V: bounded(safeDiv(f.Numbers[t.in].V, t.most))}
}

func (t *maxAbsScaler) Code(s *river.State) { s.F64(&t.most) }

func (t *maxAbsScaler) Report(r river.Report) { r.In("abs_max").Set(t.name, t.most) }
