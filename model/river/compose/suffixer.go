package compose

import "lockstep/model/river"

// Suffixer puts a text behind the name of each column.
var Suffixer = &river.Class{
	Name:    "Suffixer",
	Source:  "river.compose.Suffixer",
	Summary: "Puts a text behind each column's name.",
	Task:    river.Transformation,
	Params:  []river.Param{{Name: "suffix", Kind: river.Word, Summary: "the text"}},
	Build: func(b *river.Builder) {
		rename(b, func(name string) string { return name + river.Arg[string](b.Step(), "suffix") })
	},
}
