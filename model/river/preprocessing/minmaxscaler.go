package preprocessing

import "lockstep/model/river"

// MinMaxScaler scales numbers to 0 to 1, by the least and the greatest learned.
//
// Where River has NaN, for a column that was never learned, this has 0.
//
// Source: river.preprocessing.MinMaxScaler.
var MinMaxScaler = &river.Class{
	Name:    "MinMaxScaler",
	Source:  "river.preprocessing.MinMaxScaler",
	Summary: "Scales each number by the least and the greatest learned, to 0 to 1 (0 where they are equal).",
	Task:    river.Transformation,
	Build: func(b *river.Builder) {
		eachNumber(b, func(col *river.Column, in, out int) (river.Transformer, int) {
			// A prediction may lie far outside of what was learned.
			col.Min, col.Max = -river.MaxMagnitude, river.MaxMagnitude
			return &minMaxScaler{name: col.Name, in: in, out: out}, 24
		})
	},
}

type minMaxScaler struct {
	name    string
	in, out int

	n           uint64
	least, most float64
}

func (t *minMaxScaler) Learn(f *river.Frame) {
	x := f.Numbers[t.in].V
	if t.n++; t.n == 1 {
		t.least, t.most = x, x
	}
	t.least, t.most = min(t.least, x), max(t.most, x)
}

func (t *minMaxScaler) Transform(f *river.Frame) {
	x := safeDiv(f.Numbers[t.in].V-t.least, t.most-t.least)
	f.Numbers[t.out] = river.Number{V: bounded(x)}
}

// bounded is v, or the bound that it is beyond.
func bounded(v float64) float64 { return min(max(v, -river.MaxMagnitude), river.MaxMagnitude) }

func (t *minMaxScaler) Code(s *river.State) {
	s.U64(&t.n)
	s.F64(&t.least)
	s.F64(&t.most)
}

func (t *minMaxScaler) Report(r river.Report) {
	r.In("min").Set(t.name, t.least)
	r.In("max").Set(t.name, t.most)
}

// eachNumber builds a component for each column, all of which must be numbers,
// that reads one slot and writes another.
func eachNumber(b *river.Builder, build func(col *river.Column, in, out int) (t river.Transformer, bound int)) {
	b.Out = append([]river.Column(nil), b.In...)
	for i := range b.Out {
		col := &b.Out[i]
		if !b.Finite(col) {
			continue
		}
		in, out := col.Slot, b.NewSlot(col.Kind)
		t, bound := build(col, in, out)
		b.AddTransformer(t, bound)
		col.Slot = out
	}
}
