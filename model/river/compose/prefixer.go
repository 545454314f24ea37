package compose

import (
	"slices"

	"lockstep/model/river"
)

// Prefixer puts a text before the name of each column.
var Prefixer = &river.Class{
	Name:    "Prefixer",
	Source:  "river.compose.Prefixer",
	Summary: "Puts a text before each column's name.",
	Task:    river.Transformation,
	Params:  []river.Param{{Name: "prefix", Kind: river.Word, Summary: "the text"}},
	Build: func(b *river.Builder) {
		rename(b, func(name string) string { return river.Arg[string](b.Step(), "prefix") + name })
	},
}

// rename gives each column another name.
func rename(b *river.Builder, name func(string) string) {
	b.Out = slices.Clone(b.In)
	for i := range b.Out {
		col := &b.Out[i]
		if col.Kind == river.DummyColumn {
			b.Fail(
				"column %q is one-hot dummies, whose names are made of values; put this step before the OneHotEncoder",
				col.Name,
			)
			continue
		}
		col.Name = name(col.Name)
	}
}
