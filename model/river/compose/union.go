package compose

import (
	"slices"

	"lockstep/model/river"
)

// Union runs branches side by side. The last branch's columns come first:
// River adds them up in that order, and the order of a sum decides its last
// bits.
var Union = &river.Class{
	Name:    "union",
	Source:  "river.compose.TransformerUnion",
	Summary: "Runs branches side by side, each a step or a list of steps, and hands on the columns of all; River's `+`.",
	Task:    river.Transformation,
	Params:  []river.Param{{Name: "transformers", Kind: river.Branches, Summary: "the branches"}},
	Build:   buildUnion,
}

func buildUnion(b *river.Builder) {
	b.Out = nil
	for _, columns := range slices.Backward(b.Branches(river.Arg[[][]river.Step](b.Step(), "transformers"))) {
		b.Out = append(b.Out, columns...)
	}
	for i, col := range b.Out { // River would quietly let one of two win
		if slices.ContainsFunc(b.Out[i+1:], func(other river.Column) bool { return other.Name == col.Name }) {
			b.Fail("branches give the column %q twice; rename one", col.Name)
		}
	}
}
