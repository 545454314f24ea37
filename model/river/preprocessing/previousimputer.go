package preprocessing

import (
	"slices"

	"lockstep/model/river"
)

// PreviousImputer fills in what is null by the value learned last.
//
// Before any, River hands None on, which the steps after it cannot take: here a
// number is 0 until then, as StatImputer's mean is, and a category stays null.
//
// Source: river.preprocessing.PreviousImputer.
var PreviousImputer = &river.Class{
	Name:    "PreviousImputer",
	Source:  "river.preprocessing.PreviousImputer",
	Summary: "Fills in what is null by the column's value learned last (0 before any number was).",
	Task:    river.Transformation,
	Build: func(b *river.Builder) {
		b.Out = slices.Clone(b.In)
		for i := range b.Out {
			col := &b.Out[i]
			in := col.Slot
			switch {
			case col.Kind == river.NumberColumn && col.Nullable:
				col.Slot, col.Nullable = b.NewSlot(col.Kind), false
				col.Min, col.Max = min(col.Min, 0), max(col.Max, 0)
				b.AddTransformer(&previousNumber{name: col.Name, in: in, out: col.Slot}, 8)
			case col.Kind == river.CategoryColumn:
				col.Slot = b.NewSlot(col.Kind)
				b.AddTransformer(&previousCategory{name: col.Name, in: in, out: col.Slot, vocab: col.Vocab}, 8)
			}
		}
	},
}

type previousNumber struct {
	name    string
	in, out int
	latest  float64
}

func (t *previousNumber) Learn(f *river.Frame) {
	if x := f.Numbers[t.in]; !x.Null {
		t.latest = x.V
	}
}

func (t *previousNumber) Transform(f *river.Frame) {
	x := f.Numbers[t.in]
	if x.Null {
		x = river.Number{V: t.latest}
	}
	f.Numbers[t.out] = x
}

func (t *previousNumber) Code(s *river.State) { s.F64(&t.latest) }

func (t *previousNumber) Report(r river.Report) { r.In("latest").Set(t.name, t.latest) }

type previousCategory struct {
	name    string
	in, out int
	vocab   *river.Vocab
	latest  uint64 // the value's number and 1; 0 before any
}

func (t *previousCategory) Learn(f *river.Frame) {
	if id := f.Categories[t.in].ID; id >= 0 {
		t.latest = uint64(id) + 1
	}
}

func (t *previousCategory) Transform(f *river.Frame) {
	x := f.Categories[t.in]
	if x.ID == river.Null && t.latest > 0 {
		x.ID = int32(t.latest - 1)
	}
	f.Categories[t.out] = x
}

func (t *previousCategory) Code(s *river.State) {
	s.U64(&t.latest)
	if s.Reading() && t.latest > uint64(len(t.vocab.Texts)) {
		s.Fail()
		t.latest = 0
	}
}

func (t *previousCategory) Report(r river.Report) {
	if t.latest > 0 {
		r.In("latest").Set(t.name, t.vocab.Texts[t.latest-1])
	}
}
