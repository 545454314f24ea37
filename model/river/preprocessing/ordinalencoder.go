package preprocessing

import (
	"slices"

	"lockstep/model/river"
)

// OrdinalEncoder makes a number of each category: which of those learned it is,
// in the order of first learning, counted past the two numbers that stand for
// no category.
//
// It has no state of its own: that order is the vocabulary's.
//
// Source: river.preprocessing.OrdinalEncoder.
var OrdinalEncoder = &river.Class{
	Name:    "OrdinalEncoder",
	Source:  "river.preprocessing.OrdinalEncoder",
	Summary: "Makes a number of each category, in the order of first learning.",
	Task:    river.Transformation,
	Params: []river.Param{
		river.WholeParam("unknown_value", 0, -1e9, 1e9, "for a category that was never learned"),
		river.WholeParam("none_value", -1, -1e9, 1e9, "for null"),
	},
	Build: buildOrdinalEncoder,
}

func buildOrdinalEncoder(b *river.Builder) {
	unknown, none := river.Arg[float64](b.Step(), "unknown_value"), river.Arg[float64](b.Step(), "none_value")
	b.Out = nil
	for i := range b.In {
		col := b.In[i]
		if col.Kind != river.CategoryColumn {
			b.Fail("column %q is %s, and only categories are encoded; put a Select before", col.Name, col.Kind)
			continue
		}
		t := &ordinalEncoder{in: col.Slot, out: b.NewSlot(river.NumberColumn), unknown: unknown, none: none}
		for _, code := range []float64{unknown, none} {
			if code >= 0 && !slices.Contains(t.reserved, code) {
				t.reserved = append(t.reserved, code)
			}
		}
		slices.Sort(t.reserved)
		b.AddTransformer(t, 0)
		b.Out = append(b.Out, river.Column{
			Kind: river.NumberColumn, Name: col.Name, Slot: t.out,
			Min: min(unknown, none, 0), Max: max(unknown, none, float64(col.MaxValues)+1),
		})
	}
}

type ordinalEncoder struct {
	in, out       int
	unknown, none float64
	reserved      []float64 // codes that no category gets, ascending
}

func (t *ordinalEncoder) Learn(*river.Frame) {}

func (t *ordinalEncoder) Transform(f *river.Frame) {
	code := t.unknown
	switch id := f.Categories[t.in].ID; {
	case id == river.Null:
		code = t.none
	case id >= 0:
		code = float64(id)
		for _, reserved := range t.reserved {
			if reserved <= code {
				code++
			}
		}
	}
	f.Numbers[t.out] = river.Number{V: code}
}

func (t *ordinalEncoder) Code(*river.State) {}

func (t *ordinalEncoder) Report(river.Report) {}
