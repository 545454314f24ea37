package compose

import (
	"slices"

	"lockstep/model/river"
)

// Renamer gives columns other names. As in River, those come last then, sorted
// by their old names, for the order of a mapping must not decide anything.
// Where River passes over a name that no column has, and lets one column take
// the place of another, this reports it.
//
// Source: river.compose.Renamer.
var Renamer = &river.Class{
	Name:    "Renamer",
	Source:  "river.compose.Renamer",
	Summary: "Gives columns other names, and hands them on behind the others.",
	Task:    river.Transformation,
	Params:  []river.Param{{Name: "mapping", Kind: river.Renamings, Summary: "the new name of each column"}},
	Build:   buildRenamer,
}

func buildRenamer(b *river.Builder) {
	b.Out = slices.Clone(b.In)
	for _, e := range river.Arg[[]river.Renaming](b.Step(), "mapping") {
		if b.Find(e.Column) < 0 {
			continue
		}
		named := func(name string) func(river.Column) bool {
			return func(col river.Column) bool { return col.Kind != river.DummyColumn && col.Name == name }
		}
		i := slices.IndexFunc(b.Out, named(e.Column))
		if i < 0 || slices.ContainsFunc(b.Out, named(e.Name)) {
			b.Fail("cannot name %q as %q: there is such a column already", e.Column, e.Name)
			continue
		}
		col := b.Out[i]
		col.Name = e.Name
		b.Out = append(slices.Delete(b.Out, i, i+1), col)
	}
}
