package preprocessing

import "lockstep/model/river"

// Normalizer scales each event's numbers so that together they have length 1.
// Where all are 0, at which River divides by zero, they stay 0.
//
// Source: river.preprocessing.Normalizer.
var Normalizer = &river.Class{
	Name:   "Normalizer",
	Source: "river.preprocessing.Normalizer",
	Summary: "Divides an event's numbers by their length: the sum of their sizes (order 1), or the root of the sum of " +
		"their squares (2).",
	Task:   river.Transformation,
	Params: []river.Param{river.WholeParam("order", 2, 1, 2, "of the norm")},
	Build: func(b *river.Builder) {
		t := &normalizer{squares: river.Arg[float64](b.Step(), "order") == 2}
		b.Out = append([]river.Column(nil), b.In...)
		for i := range b.Out {
			col := &b.Out[i]
			if !b.Finite(col) {
				continue
			}
			out := b.NewSlot(col.Kind)
			t.slots = append(t.slots, [2]int{col.Slot, out})
			col.Slot = out
			if col.Min = min(col.Min, 0); col.Min < 0 {
				col.Min = -1
			}
			if col.Max = max(col.Max, 0); col.Max > 0 {
				col.Max = 1
			}
		}
		b.AddTransformer(t, 0)
	},
}

// normalizer has no state.
type normalizer struct {
	slots   [][2]int // of each number: what is read, and what is written
	squares bool
}

func (t *normalizer) Learn(*river.Frame) {}

func (t *normalizer) Transform(f *river.Frame) {
	norm := 0.0
	for _, s := range t.slots {
		x := f.Numbers[s[0]].V
		switch {
		case t.squares:
			norm += float64(x * x)
		default:
			norm += max(x, -x)
		}
	}
	if t.squares {
		norm = river.Sqrt(norm)
	}
	for _, s := range t.slots {
		f.Numbers[s[1]] = river.Number{V: min(max(safeDiv(f.Numbers[s[0]].V, norm), -1), 1)}
	}
}

func (t *normalizer) Code(*river.State) {}

func (t *normalizer) Report(river.Report) {}
