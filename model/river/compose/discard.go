package compose

import (
	"slices"

	"lockstep/model/river"
)

// Discard hands on all columns but those named.
var Discard = &river.Class{
	Name:    "Discard",
	Source:  "river.compose.Discard",
	Summary: "Hands on all columns but those named.",
	Task:    river.Transformation,
	Params:  []river.Param{{Name: "keys", Kind: river.Columns, Summary: "the columns"}},
	Build: func(b *river.Builder) {
		named := river.Arg[[]string](b.Step(), "keys")
		for _, name := range named {
			b.Find(name)
		}
		b.Out = slices.DeleteFunc(slices.Clone(b.In), func(col river.Column) bool {
			return col.Kind != river.DummyColumn && slices.Contains(named, col.Name)
		})
	},
}
