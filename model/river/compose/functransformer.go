package compose

import (
	"math"
	"slices"

	"lockstep/model/river"
)

// FuncTransformer makes numbers of columns. In River it takes a function in
// Python; here the functions are declared, so that every replica computes the
// same bits and a spec says all that happens. It hands on what it makes and
// nothing else: put it beside a Select, in a union.
//
// Source: river.compose.FuncTransformer.
var FuncTransformer = &river.Class{
	Name:    "FuncTransformer",
	Source:  "river.compose.FuncTransformer",
	Summary: "Makes numbers of columns by declared functions, and hands on those alone, sorted by name.",
	Task:    river.Transformation,
	Params: []river.Param{{Name: "func", Kind: river.Functions, Choices: functionNames(),
		Summary: "for each new column a function with its columns, as in `{per_day: {ratio: [amount, days]}}`; " +
			"`clip` has two bounds behind its column"}},
	Build: buildFuncTransformer,
}

// function is a declared function.
type function struct {
	name             string
	columns, numbers int
	of               river.ColumnKind
	call             func(x, y float64, numbers []float64) float64 // y is 0 without a second column
	bounds           func(x, y [2]float64, numbers []float64) (least, most float64)
}

// between bounds a function by two numbers.
func between(least, most float64) func(x, y [2]float64, _ []float64) (float64, float64) {
	return func(_, _ [2]float64, _ []float64) (float64, float64) { return least, most }
}

// functions are those of a timestamp, which are of UTC, and those of numbers.
var functions = []function{
	{name: "minute", columns: 1, of: river.TimestampColumn, bounds: between(0, 59), call: clock(60, 60)},
	{name: "hour", columns: 1, of: river.TimestampColumn, bounds: between(0, 23), call: clock(3600, 24)},
	// 1970 began on a Thursday, and a week begins on Monday, which is 0.
	{name: "weekday", columns: 1, of: river.TimestampColumn, bounds: between(0, 6),
		call: func(x, _ float64, _ []float64) float64 { return modulo(math.Floor(x/86400)+3, 7) }},
	{name: "day", columns: 1, of: river.TimestampColumn, bounds: between(1, 31),
		call: func(x, _ float64, _ []float64) float64 { _, day := monthAndDay(x); return day }},
	{name: "month", columns: 1, of: river.TimestampColumn, bounds: between(1, 12),
		call: func(x, _ float64, _ []float64) float64 { month, _ := monthAndDay(x); return month }},
	{name: "log1p", columns: 1,
		call:   func(x, _ float64, _ []float64) float64 { return river.Log1p(max(x, 0)) },
		bounds: func(x, _ [2]float64, _ []float64) (float64, float64) { return 0, river.Log1p(max(x[1], 0)) }},
	{name: "clip", columns: 1, numbers: 2,
		call:   func(x, _ float64, n []float64) float64 { return min(max(x, n[0]), n[1]) },
		bounds: func(_, _ [2]float64, n []float64) (float64, float64) { return n[0], n[1] }},
	{name: "ratio", columns: 2, bounds: between(-river.MaxMagnitude, river.MaxMagnitude),
		call: func(x, y float64, _ []float64) float64 {
			if y == 0 {
				return 0
			}
			return x / y
		}},
	{name: "product", columns: 2,
		call: func(x, y float64, _ []float64) float64 { return x * y },
		bounds: func(x, y [2]float64, _ []float64) (float64, float64) {
			ends := []float64{x[0] * y[0], x[0] * y[1], x[1] * y[0], x[1] * y[1]}
			return slices.Min(ends), slices.Max(ends)
		}},
	{name: "difference", columns: 2,
		call:   func(x, y float64, _ []float64) float64 { return x - y },
		bounds: func(x, y [2]float64, _ []float64) (float64, float64) { return x[0] - y[1], x[1] - y[0] }},
}

func functionNames() []string {
	var out []string
	for i := range functions {
		out = append(out, functions[i].name)
	}
	return out
}

// clock is how many units of seconds have passed, modulo how many there are.
func clock(seconds, units float64) func(x, _ float64, _ []float64) float64 {
	return func(x, _ float64, _ []float64) float64 { return modulo(math.Floor(x/seconds), units) }
}

// modulo is the remainder of two whole numbers, never negative.
func modulo(x, y float64) float64 { return x - float64(y*math.Floor(x/y)) }

// monthAndDay are of the proleptic Gregorian calendar, both from 1. It counts
// years from March, so that the leap day is a year's last.
func monthAndDay(seconds float64) (month, day float64) {
	const toMarchOf0 = 719468 // days from 1 March of the year 0 to 1970
	days := int(math.Floor(seconds/86400)) + toMarchOf0
	inEra := ((days % 146097) + 146097) % 146097
	year := (inEra - inEra/1460 + inEra/36524 - inEra/146096) / 365
	inYear := inEra - (365*year + year/4 - year/100)
	fromMarch := (5*inYear + 2) / 153
	return float64((fromMarch+2)%12 + 1), float64(inYear - (153*fromMarch+2)/5 + 1)
}

func buildFuncTransformer(b *river.Builder) {
	t := &funcTransformer{}
	b.Out = nil
	for _, e := range river.Arg[[]river.Function](b.Step(), "func") {
		i := slices.IndexFunc(functions, func(f function) bool { return f.name == e.Name })
		if i < 0 {
			continue // reported by the parser
		}
		f := &functions[i]
		if len(e.Columns) != f.columns || len(e.Numbers) != f.numbers {
			b.Fail("%s: %s takes %d columns and %d numbers", e.Output, e.Name, f.columns, f.numbers)
			continue
		}
		if f.numbers == 2 && e.Numbers[0] > e.Numbers[1] {
			b.Fail("%s: the bounds of %s are in the wrong order", e.Output, e.Name)
			continue
		}
		in, ok := arguments(b, f, e)
		if !ok {
			continue
		}
		least, most := f.bounds([2]float64{in[0].Min, in[0].Max}, [2]float64{in[1].Min, in[1].Max}, e.Numbers)
		if max(math.Abs(least), math.Abs(most)) > river.MaxMagnitude && !b.Limits().Unbounded {
			b.Fail("%q can be larger than %g; give its inputs narrower bounds", e.Output, river.MaxMagnitude)
			continue
		}
		col := river.Column{Kind: river.NumberColumn, Name: e.Output, Min: least, Max: most}
		col.Slot = b.NewSlot(col.Kind)
		b.Out = append(b.Out, col)
		t.calls = append(t.calls, call{of: f, in: [2]int{in[0].Slot, in[1].Slot}, out: col.Slot, numbers: e.Numbers})
	}
	b.AddTransformer(t, 0)
}

// arguments are a function's columns; of one that takes one, twice that.
func arguments(b *river.Builder, f *function, e river.Function) (in [2]river.Column, ok bool) {
	for k, name := range e.Columns {
		i := b.Find(name)
		if i < 0 {
			return in, false
		}
		col := b.In[i]
		switch {
		case col.Kind != f.of && f.of == river.TimestampColumn:
			b.Fail("%s: %s is of a timestamp, and %q is %s", e.Output, e.Name, name, col.Kind)
			return in, false
		case col.Kind == river.TimestampColumn && f.of == river.TimestampColumn:
			if col.Nullable {
				b.Fail("column %q may be null, which %s does not take; its input must not be nullable or optional", name, e.Name)
				return in, false
			}
		case !b.Finite(&col):
			return in, false
		}
		in[k] = col
	}
	if f.columns == 1 {
		in[1] = in[0]
	}
	return in, true
}

// funcTransformer has no state.
type funcTransformer struct{ calls []call }

type call struct {
	of      *function
	in      [2]int // slots
	out     int
	numbers []float64
}

func (t *funcTransformer) Learn(*river.Frame) {}

func (t *funcTransformer) Transform(f *river.Frame) {
	for i := range t.calls {
		c := &t.calls[i]
		v := c.of.call(f.Numbers[c.in[0]].V, f.Numbers[c.in[1]].V, c.numbers)
		f.Numbers[c.out] = river.Number{V: min(max(v, -river.MaxMagnitude), river.MaxMagnitude)}
	}
}

func (t *funcTransformer) Code(*river.State) {}

func (t *funcTransformer) Report(river.Report) {}
