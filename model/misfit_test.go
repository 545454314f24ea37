package model

import (
	"strings"
	"testing"
)

// TestStepsThatDoNotFit: a pipeline whose steps do not fit together begins no
// log, and each misfit says what to do.
func TestStepsThatDoNotFit(t *testing.T) {
	const inputs = `name: a
input:
  a: {type: number, min: 0, max: 1000}
  signed: {type: number, min: -1e60, max: 1e60}
  free: {type: number}
  gap: {type: number, min: 0, max: 1, nullable: true}
  c: {type: category}
  when: {type: timestamp}
label: {name: l, type: category}
pipeline:
`
	for _, c := range []struct{ pipeline, want string }{
		{"[{Select: [zz]}, GaussianNB]", `no column "zz" here; there are: `},
		{"[{Discard: [zz]}, GaussianNB]", `no column "zz" here; there are: `},
		{"[{Select: [a, a]}, GaussianNB]", `column "a" is named twice`},
		{"[{Select: [free]}, GaussianNB]", `column "free" has no lower bound; give its input a min`},
		{"[{Select: [c]}, GaussianNB]", `column "c" is a category; put a OneHotEncoder or a Select before`},
		{"[{Select: [when]}, GaussianNB]", `put a FuncTransformer before, as in {FuncTransformer: {hour: {hour: when}}}`},
		{"[{Select: [gap]}, GaussianNB]", `put a StatImputer before, as in {StatImputer: {gap: Mean}}`},
		{"[{Select: [signed]}, MultinomialNB]", `column "signed" may be negative`},
		{"[{Select: [signed]}, ComplementNB]", `column "signed" may be negative`},
		{"[{Select: [c]}, {StatImputer: {c: Mean}}]", `Mean does not fit "c", which is a category`},
		{"[{Select: [c]}, {StatImputer: {c: 1}}]", `1 does not fit "c", which is a category`},
		{"[{Select: [a]}, {StatImputer: {a: Mode}}]", `Mode does not fit "a", which is a number`},
		{"[{Select: [a]}, {Renamer: {zz: x}}]", `no column "zz" here; there are: a`},
		{"[{Select: [a, c]}, {Renamer: {a: c}}]", `cannot name "a" as "c": there is such a column already`},
		{"[{Select: [a, c]}, {Renamer: {a: x, c: x}}]", `cannot name "c" as "x": there is such a column already`},
		{"[{union: [{Select: [a]}, {Select: [a]}]}]", `branches give the column "a" twice`},
		{"[{Select: [c]}, OneHotEncoder, {Prefixer: {prefix: x_}}]", "put this step before the OneHotEncoder"},
		{"[{Select: [signed]}, PolynomialExtender]", `a product with "signed" can be larger than 1e+100`},
		{"[{Select: [c]}, PolynomialExtender]", `column "c" is a category`},
		{"[{Select: [a]}, {PolynomialExtender: {bias_name: a, include_bias: true}}]", `two columns would have the name "a"`},
		{"[{Select: [c]}, OneHotEncoder, StandardScaler]", "one-hot dummies, which only the pipeline's last step takes"},
		{"[{FuncTransformer: {x: {hour: a}}}]", `x: hour is of a timestamp, and "a" is a number`},
		{"[{FuncTransformer: {x: {log1p: when}}}]", `column "when" is a timestamp`},
		{"[{FuncTransformer: {x: {ratio: a}}}]", `x: ratio takes 2 columns and 0 numbers`},
		{"[{FuncTransformer: {x: {clip: [a, 9, 1]}}}]", `x: the bounds of clip are in the wrong order`},
		{"[{FuncTransformer: {x: {product: [signed, signed]}}}]", `"x" can be larger than 1e+100`},
		{"[{FuncTransformer: {x: {log1p: gap}}}]", `put a StatImputer before`},
	} {
		pipeline := c.pipeline
		if !strings.Contains(pipeline, "NB]") {
			pipeline = strings.TrimSuffix(pipeline, "]") + ", GaussianNB]"
		}
		s, err := ParseSpec([]byte(inputs + "  " + pipeline))
		if err != nil {
			t.Errorf("%s: %v", pipeline, err)
			continue
		}
		if _, err := New(s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got: %v\nwant: %s", pipeline, err, c.want)
		}
	}
}
