// Package preprocessing has the steps that prepare columns.
package preprocessing

import (
	"lockstep/model/river"
	"lockstep/model/river/stats"
)

// StatImputer fills in what is missing by a statistic of the column.
var StatImputer = &river.Class{
	Name:   "StatImputer",
	Source: "river.preprocessing.StatImputer",
	Summary: "Fills in what is null: a number by the mean of those learned or a constant, a category by the one " +
		"learned most often.",
	Task: river.Transformation,
	Params: []river.Param{{Name: "imputers", Kind: river.Statistics, Choices: []string{"Mean", "Mode"},
		Min: -river.MaxMagnitude, Max: river.MaxMagnitude,
		Summary: "for each column, `Mean` (of a number), `Mode` (of a category), or a number"}},
	Build: buildStatImputer,
}

func buildStatImputer(b *river.Builder) {
	b.Out = append([]river.Column(nil), b.In...)
	for _, statistic := range river.Arg[[]river.Statistic](b.Step(), "imputers") {
		i := b.Find(statistic.Column)
		if i < 0 {
			continue
		}
		col := &b.Out[i]
		switch {
		case statistic.Name == river.Constant && col.Kind == river.NumberColumn:
			t := &constantImputer{in: col.Slot, out: b.NewSlot(col.Kind), value: statistic.Value}
			b.AddTransformer(t, 0)
			col.Slot, col.Nullable = t.out, false
			col.Min, col.Max = min(col.Min, t.value), max(col.Max, t.value)
		case statistic.Name == "Mean" && col.Kind == river.NumberColumn:
			t := &meanImputer{name: col.Name, in: col.Slot, out: b.NewSlot(col.Kind)}
			b.AddTransformer(t, 16)
			col.Slot, col.Nullable = t.out, false
			col.Min, col.Max = min(col.Min, 0), max(col.Max, 0) // the mean of nothing is 0
		case statistic.Name == "Mode" && col.Kind == river.CategoryColumn:
			t := &modeImputer{name: col.Name, in: col.Slot, out: b.NewSlot(col.Kind), vocab: col.Vocab, mode: river.Null}
			b.AddTransformer(t, 8+8*modeValues)
			col.Slot = t.out // still null before any value
		default:
			name := statistic.Name
			if name == river.Constant {
				name = river.Shortest(statistic.Value)
			}
			b.Fail(
				"%s does not fit %q, which is %s (Mean and a number are for numbers, Mode is for categories)", name, col.Name,
				col.Kind,
			)
		}
	}
}

// constantImputer is StatImputer with a number on one column.
type constantImputer struct {
	in, out int
	value   float64
}

func (t *constantImputer) Learn(*river.Frame) {}

func (t *constantImputer) Transform(f *river.Frame) {
	x := f.Numbers[t.in]
	if x.Null {
		x = river.Number{V: t.value}
	}
	f.Numbers[t.out] = x
}

func (t *constantImputer) Code(*river.State) {}

func (t *constantImputer) Report(river.Report) {}

// meanImputer is StatImputer with stats.Mean on one column: a null becomes the
// mean of the values learned so far, 0 before any.
type meanImputer struct {
	name    string
	in, out int
	mean    stats.Mean
}

func (t *meanImputer) Learn(f *river.Frame) {
	if x := f.Numbers[t.in]; !x.Null {
		t.mean.Update(x.V)
	}
}

func (t *meanImputer) Transform(f *river.Frame) {
	x := f.Numbers[t.in]
	if x.Null {
		x = river.Number{V: t.mean.Mean}
	}
	f.Numbers[t.out] = x
}

func (t *meanImputer) Code(s *river.State) { t.mean.Code(s) }

func (t *meanImputer) Report(r river.Report) {
	r.In("means").Set(t.name, map[string]any{"n": t.mean.N, "mean": t.mean.Mean})
}

// modeValues is how many distinct values river.stats.Mode counts; later ones
// are ignored.
const modeValues = 25

// modeImputer is StatImputer with stats.Mode on one column: a null becomes the
// most frequent value, of equals the one learned first, and stays null before
// any.
//
// Source: river.stats.Mode, with its default k of 25.
type modeImputer struct {
	name    string
	in, out int
	vocab   *river.Vocab // the column's
	n       []uint64     // by the value's number: values are learned in that order
	mode    int32        // derived from n
}

func (t *modeImputer) Learn(f *river.Frame) {
	id := f.Categories[t.in].ID
	if id < 0 || id >= modeValues {
		return
	}
	for int(id) >= len(t.n) {
		t.n = append(t.n, 0)
	}
	t.n[id]++
	t.findMode()
}

func (t *modeImputer) findMode() {
	t.mode = river.Null
	var most uint64
	for id, n := range t.n {
		if n > most {
			t.mode, most = int32(id), n
		}
	}
}

func (t *modeImputer) Transform(f *river.Frame) {
	x := f.Categories[t.in]
	if x.ID == river.Null && t.mode != river.Null {
		x.ID = t.mode
	}
	f.Categories[t.out] = x
}

func (t *modeImputer) Code(s *river.State) {
	s.U64s(&t.n)
	if !s.Reading() {
		return
	}
	if len(t.n) > len(t.vocab.Texts) || len(t.n) > modeValues {
		s.Fail()
		t.n = nil
	}
	t.findMode()
}

func (t *modeImputer) Report(r river.Report) {
	counts := map[string]any{}
	for id, n := range t.n {
		counts[t.vocab.Texts[id]] = n
	}
	var mode any
	if t.mode != river.Null {
		mode = t.vocab.Texts[t.mode]
	}
	r.Set(t.name+"_mode", map[string]any{"counts": counts, "mode": mode})
}
