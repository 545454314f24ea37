package featureextraction

import (
	"math"
	"slices"
	"strings"

	"lockstep/model/river"
)

// maxProducts is how many columns a PolynomialExtender makes at the most.
const maxProducts = 1024

// PolynomialExtender multiplies numbers with each other. A product has the
// names of its factors, sorted, with * between them.
//
// Source: river.feature_extraction.PolynomialExtender.
var PolynomialExtender = &river.Class{
	Name:    "PolynomialExtender",
	Source:  "river.feature_extraction.PolynomialExtender",
	Summary: "Makes a column `a*b` for each product of numbers, and of a number with itself; 1,024 at the most.",
	Task:    river.Transformation,
	Params: []river.Param{
		river.WholeParam("degree", 2, 1, 8, "how many factors a product has at the most"),
		river.BoolParam("interaction_only", false, "no number is multiplied with itself"),
		river.BoolParam("include_bias", false, "adds a column that is 1 always"),
		{Name: "bias_name", Kind: river.Word, Default: "bias", Summary: "that column's name"},
	},
	Build: buildPolynomialExtender,
}

func buildPolynomialExtender(b *river.Builder) {
	for i := range b.In {
		if !b.Finite(&b.In[i]) {
			return
		}
	}
	t := &polynomialExtender{}
	p := &products{b: b, t: t, repeated: !river.Arg[bool](b.Step(), "interaction_only")}
	for size := 1; size <= int(river.Arg[float64](b.Step(), "degree")); size++ {
		p.choose(nil, 0, size)
	}
	if river.Arg[bool](b.Step(), "include_bias") {
		p.add(river.Arg[string](b.Step(), "bias_name"), nil)
	}
	b.Out = p.out
	if len(b.Out) > maxProducts {
		b.Fail(
			"makes more than %d products of %d columns; select fewer columns before, or lower the degree", maxProducts,
			len(b.In),
		)
		b.Out = b.Out[:maxProducts]
	}
	b.AddTransformer(t, 0)
}

// products makes the columns, as long as there are not too many.
type products struct {
	b        *river.Builder
	t        *polynomialExtender
	repeated bool
	out      []river.Column
}

// choose adds every product of size more factors, in the order of itertools'
// combinations. It takes them from the columns from first on.
func (p *products) choose(factors []int, first, size int) {
	if size == 0 {
		p.add("", factors)
		return
	}
	for i := first; i < len(p.b.In) && len(p.out) <= maxProducts; i++ {
		next := i + 1
		if p.repeated {
			next = i
		}
		p.choose(append(factors, i), next, size-1)
	}
}

// add adds a product of columns, which without any is 1.
func (p *products) add(name string, factors []int) {
	col := river.Column{Kind: river.NumberColumn, Name: name, Min: 1, Max: 1}
	var names []string
	var slots []int
	for _, i := range factors {
		in := &p.b.In[i]
		ends := []float64{col.Min * in.Min, col.Min * in.Max, col.Max * in.Min, col.Max * in.Max}
		col.Min, col.Max = slices.Min(ends), slices.Max(ends)
		if max(math.Abs(col.Min), math.Abs(col.Max)) > river.MaxMagnitude && !p.b.Limits().Unbounded {
			p.b.Fail(
				"a product with %q can be larger than %g; give its input narrower bounds", in.Name, river.MaxMagnitude,
			)
			return
		}
		names, slots = append(names, in.Name), append(slots, in.Slot)
	}
	if len(factors) > 0 {
		slices.Sort(names)
		col.Name = strings.Join(names, "*")
	}
	if slices.ContainsFunc(p.out, func(other river.Column) bool { return other.Name == col.Name }) {
		p.b.Fail("two columns would have the name %q; rename what comes in with a Renamer", col.Name)
		return
	}
	col.Slot = p.b.NewSlot(col.Kind)
	p.t.products = append(p.t.products, product{factors: slots, out: col.Slot})
	p.out = append(p.out, col)
}

// polynomialExtender has no state.
type polynomialExtender struct{ products []product }

type product struct {
	factors []int // slots
	out     int
}

func (t *polynomialExtender) Learn(*river.Frame) {}

func (t *polynomialExtender) Transform(f *river.Frame) {
	for i := range t.products {
		x := 1.0
		for _, slot := range t.products[i].factors {
			x = min(max(x*f.Numbers[slot].V, -river.MaxMagnitude), river.MaxMagnitude)
		}
		f.Numbers[t.products[i].out] = river.Number{V: x}
	}
}

func (t *polynomialExtender) Code(*river.State) {}

func (t *polynomialExtender) Report(river.Report) {}
