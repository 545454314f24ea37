// Package compose has the steps that a pipeline is put together with.
package compose

import (
	"slices"

	"lockstep/model/river"
)

// Select hands on the named columns, in their order.
var Select = &river.Class{
	Name:    "Select",
	Source:  "river.compose.Select",
	Summary: "Hands on the named columns, in the order in which they are named.",
	Task:    river.Transformation,
	Params:  []river.Param{{Name: "keys", Kind: river.Columns, Summary: "the columns"}},
	Build:   buildSelect,
}

func buildSelect(b *river.Builder) {
	b.Out = nil
	for _, name := range river.Arg[[]string](b.Step(), "keys") {
		i := b.Find(name)
		switch {
		case i < 0:
		case slices.ContainsFunc(b.Out, func(col river.Column) bool { return col.Name == name }):
			b.Fail("column %q is named twice", name)
		default:
			b.Out = append(b.Out, b.In[i])
		}
	}
}
