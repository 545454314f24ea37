package model

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lockstep/model/river"
)

func TestShippedSpecs(t *testing.T) {
	names := ShippedSpecs()
	for _, name := range names {
		s, ok := ShippedSpec(name)
		if !ok || s.Name != name {
			t.Fatalf("%s: %v", name, s)
		}
		if _, err := New(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, ok := ShippedSpec("penguins.yaml"); ok {
		t.Errorf("there is %v", s)
	}
	penguins, gaussian := DefaultSpec(), must(ShippedSpec(names[1]))
	if penguins.Name != names[0] {
		t.Errorf("the default is %s", penguins.Name)
	}
	sameEvents := reflect.DeepEqual(penguins.Inputs, gaussian.Inputs) &&
		reflect.DeepEqual(penguins.Label, gaussian.Label)
	if !sameEvents || penguins.DedupWindow != gaussian.DedupWindow {
		t.Error("the shipped specs do not take the same events")
	}
}

func must(s *Spec, _ bool) *Spec { return s }

// TestCanonical pins the format: anyone who changes it changes every contract,
// and no fleet with an older log starts any more.
func TestCanonical(t *testing.T) {
	want := `lockstep-spec 1
name "penguins"
semantics "river-0.26"
dedup window=65536
input "island" category nullable=false max_values=64 max_bytes=64
input "bill_length_mm" number nullable=true min=0 max=1000
input "bill_depth_mm" number nullable=true min=0 max=1000
input "flipper_length_mm" number nullable=true min=0 max=10000
input "body_mass_g" number nullable=true min=0 max=100000
input "sex" category nullable=true max_values=8 max_bytes=64
label "species" category nullable=false max_values=64 max_bytes=64
pipeline
  union
    branch
      Select "island"
      OneHotEncoder drop_first=true
    branch
      Select "sex"
      StatImputer "sex"=Mode
      OneHotEncoder drop_first=true
    branch
      Select "bill_length_mm" "bill_depth_mm" "flipper_length_mm" "body_mass_g"
      StatImputer "bill_depth_mm"=Mean "bill_length_mm"=Mean "body_mass_g"=Mean "flipper_length_mm"=Mean
  MultinomialNB alpha=1
`
	if got := string(DefaultSpec().Canonical()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got, want := fmt.Sprintf("%x", DefaultSpec().Contract()), "67258ab69c41ab7184789b8ebd380758777253efed9d6ac6f918f62c3ecb532a"; got != want {
		t.Errorf("the contract is %s, want %s", got, want)
	}
	odd := &Spec{
		Name: "a", Inputs: []Field{{Name: "é\"\n😀", Min: math.Inf(-1), Max: 0.1}},
		Pipeline: []river.Step{step("StandardScaler"), step("GaussianNB")},
	}
	if got, want := string(odd.Canonical()), `input "\u00e9\"\n\U0001f600" number nullable=false min=-Inf max=0.1`; !strings.Contains(
		got, want,
	) ||
		!strings.Contains(got, "StandardScaler with_std=true\n  GaussianNB\n") {
		t.Errorf("got:\n%s\nwant %s", got, want)
	}
}

// step is a class with its defaults.
func step(name string) river.Step {
	class := findClass(name, stepTasks...)
	return river.Step{Class: class, Args: class.Defaults()}
}

const plainSpec = `
name: plain
semantics: river-0.26
input:
  x: {type: number, nullable: false, min: 0, max: 1000}
  y: {type: number}
  c: {type: category, max_values: 64, max_bytes: 64}
label: {name: l, type: category, max_values: 64, max_bytes: 64}
dedup: {window: 65536}
pipeline:
  - union:
      - [{Select: [x, y]}, {StatImputer: {x: Mean, y: Mean}}, {StandardScaler: {with_std: true}}]
      - [{Select: [c]}, {OneHotEncoder: {drop_first: false}}]
  - MultinomialNB: {alpha: 1}
`

func parse(t *testing.T, text string) *Spec {
	t.Helper()
	s, err := ParseSpec([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return s
}

func TestOneContractForOneMeaning(t *testing.T) {
	want := string(parse(t, plainSpec).Canonical())
	for name, text := range map[string]string{
		"comments": "# hello\r\n" + strings.ReplaceAll(plainSpec, "\n", " # there\r\n"),
		"defaults": strings.NewReplacer("semantics: river-0.26\n", "", "nullable: false, ", "", ", max_values: 64, "+
			"max_bytes: 64", "", "dedup: {window: 65536}\n", "", "{StandardScaler: {with_std: true}}", "StandardScaler", "{OneHotEncoder: {drop_first: false}}", "OneHotEncoder: {}", "MultinomialNB: {alpha: 1}", "MultinomialNB:").Replace(plainSpec),
		"numbers": strings.NewReplacer("min: 0", "min: -0.0", "1000", "1e3", "65536", "6.5536e4", "alpha: 1", "alpha: 1.0", "max_values: 64", "max_values: 64.0").Replace(plainSpec),
		"key order": strings.NewReplacer("type: number, nullable: false, min: 0, max: 1000", "max: 1000, min: 0, "+
			"nullable: false, type: number", "{x: Mean, y: Mean}", "{y: Mean, x: Mean}").Replace(plainSpec),
		"quotes":   strings.NewReplacer("name: plain", `name: "plain"`, "[x, y]", `['x', "\x79"]`, "Mean", `"Mean"`).Replace(plainSpec),
		"no dedup": strings.Replace(plainSpec, "{window: 65536}", "{}", 1),
		"booleans": strings.NewReplacer("false", "False", "true", "TRUE").Replace(plainSpec),
		"one branch": strings.Replace(plainSpec, "[{Select: [c]}, {OneHotEncoder: {drop_first: false}}]", "\n        - "+
			"{Select: [c]}\n        - {OneHotEncoder: }", 1),
	} {
		if text == plainSpec {
			t.Errorf("%s: nothing was replaced", name)
		}
		if got := string(parse(t, text).Canonical()); got != want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", name, got, want)
		}
	}
	reordered := strings.Replace(plainSpec, "name: plain\n", "", 1) + "name: plain\n"
	if got := string(parse(t, reordered).Canonical()); got != want {
		t.Errorf("the name last: got:\n%s", got)
	}
}

func TestAnotherContractForAnotherMeaning(t *testing.T) {
	seen := map[[32]byte]string{parse(t, plainSpec).Contract(): "plain"}
	for _, change := range [][2]string{
		{"name: plain", "name: plan"}, {"{name: l,", "{name: m,"},
		{"nullable: false", "nullable: true"}, {"min: 0", "min: 0.5"}, {"min: 0, ", ""}, {"max: 1000", "max: 1001"}, {", max: 1000", ""},
		{"c: {type: category, max_values: 64", "c: {type: category, max_values: 65"}, {"max_bytes: 64}\nlabel", "max_bytes: 65}\nlabel"},
		{"l, type: category, max_values: 64", "l, type: category, max_values: 65"}, {"max_bytes: 64}\ndedup", "max_bytes: 65}\ndedup"},
		{"window: 65536", "window: 0"}, {"[x, y]", "[y, x]"}, {"[x, y]", "['x y']"}, {"x: Mean", "x: Mode"}, {", y: Mean", ""},
		{"with_std: true", "with_std: false"}, {"drop_first: false", "drop_first: true"}, {"alpha: 1", "alpha: 0.5"}, {"MultinomialNB: {alpha: 1}", "GaussianNB"},
		{"  y: {type: number}\n  c: {type: category, max_values: 64, max_bytes: 64}\n", "  c: {type: category, " +
			"max_values: 64, max_bytes: 64}\n  y: {type: number}\n"},
		{"{StandardScaler: {with_std: true}}]", "{StandardScaler: {with_std: true}}, Select: [x]]"},
	} {
		text := strings.Replace(plainSpec, change[0], change[1], 1)
		contract := parse(t, text).Contract()
		if same, ok := seen[contract]; ok {
			t.Errorf("%q for %q has the contract of: %s", change[1], change[0], same)
		}
		seen[contract] = change[1]
	}
	s := DefaultSpec()
	if s.Semantics = "river-0.27"; s.Contract() == DefaultSpec().Contract() {
		t.Error("the semantics is no part of the contract")
	}
	s = DefaultSpec()
	s.Pipeline[0].Line, s.YAML = 99, nil
	if s.Contract() != DefaultSpec().Contract() {
		t.Error("a line or the YAML's bytes are part of the contract")
	}
}

func TestParsedSteps(t *testing.T) {
	s := parse(t, plainSpec)
	if string(s.YAML) != plainSpec {
		t.Error("the YAML is another")
	}
	branches := river.Arg[[][]river.Step](&s.Pipeline[0], "transformers")
	first := branches[0]
	columns, statistics := river.Arg[[]string](&first[0], "keys"), river.Arg[[]river.Statistic](&first[1], "imputers")
	if first[0].Line != 12 || !slices.Equal(columns, []string{"x", "y"}) ||
		!slices.Equal(statistics, []river.Statistic{{Column: "x", Name: "Mean"}, {Column: "y", Name: "Mean"}}) {
		t.Errorf("got %+v", first)
	}
	if s.Inputs[1].Min != math.Inf(-1) || s.Inputs[1].Max != math.Inf(1) {
		t.Errorf("%+v", s.Inputs[1])
	}
	if encoder := branches[1][1]; encoder.Class.Name != "OneHotEncoder" || !slices.Equal(encoder.Args, []any{false}) {
		t.Errorf("got %+v, want OneHotEncoder with false", encoder)
	}
	if alone := parse(t, plainSpec[:strings.Index(plainSpec, "pipeline")]+"pipeline: GaussianNB"); len(
		alone.Pipeline,
	) != 1 ||
		alone.Pipeline[0].Class.Name != "GaussianNB" {
		t.Errorf("%+v", alone.Pipeline)
	}
}

func TestBadSpecs(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"name: plain\n", "", "line 2: the spec: name is missing"},
		{"name: plain", "name: Plain", "line 2: name must be a small letter, then up to 31 small letters, digits and " +
			"hyphens: it begins every subject"},
		{"name: plain", "name: " + strings.Repeat("a", 33), "line 2: name must be a small letter, then"},
		{"name: plain", "name: [a]", "line 2: name must be a text"},
		{"river-0.26", "river-0.25", `line 3: semantics: "river-0.25" is not known; known: river-0.26`},
		{"dedup:", "depup:", `line 9: the spec: "depup" is not known here; known: name, semantics, input, label, dedup, pipeline`},
		{"dedup:", "name: again\ndedup:", `line 9: the spec: "name" is given twice`},
		{"dedup:", `"na\u006de": again` + "\ndedup:", `line 9: the spec: "name" is given twice`},
		{"dedup:", "[a]: b\ndedup:", "line 9: the spec: a key must be a text"},
		{"{window: 65536}", "{window: 1048577}", "line 9: dedup.window must be a whole number from 0 to 1048576"},
		{"{window: 65536}", "{window: -1}", "line 9: dedup.window must be a whole number from 0 to 1048576"},
		{"{window: 65536}", "{window: 1.5}", "line 9: dedup.window must be a whole number from 0 to 1048576"},
		{"{window: 65536}", "{window: 0x10}", "line 9: dedup.window must be a number, as in 10, 2.5 or 1e6"},
		{"{window: 65536}", "{size: 1}", `line 9: dedup: "size" is not known here; known: window`},
		{"{window: 65536}", "65536", "line 9: dedup must be a mapping, as in {key: value}"},

		{"x: {type: number,", "x: {", "line 5: input x: type is missing"},
		{"x: {type: number,", "x: {type: float,", `line 5: input x: type: "float" is not known; known: number, category`},
		{"x: {type: number,", "x: {type: Number,", `line 5: input x: type: "Number" is not known; known: number, category, boolean, timestamp, text; write number`},
		{"x: {type: number,", "x: {type: ,", `line 5: input x: type: "" is not known; known: number, category`},
		{"x: {type: number,", "x: {type: number, size: 3,", `line 5: input x: "size" is not known here; known: type, nullable, optional, overflow, min, max, max_values, max_bytes, integers, values`},
		{"x: {type: number,", "x: {type: number, max_bytes: 3,", "line 5: input x: max_bytes is for categories; a number " +
			"has min and max"},
		{"c: {type: category,", "c: {type: category, min: 3,", "line 7: input c: min is for numbers; a category has " +
			"max_values and max_bytes"},
		{"min: 0", "min: 2e3", "line 5: input x: min is above max"},
		{"min: 0", "min: '0'", "line 5: input x: min must be a number, as in 10, 2.5 or 1e6"},
		{"min: 0", "min: 010", "line 5: input x: min must be a number, as in 10, 2.5 or 1e6"},
		{"min: 0", "min: 1_0", "line 5: input x: min must be a number, as in 10, 2.5 or 1e6"},
		{"min: 0", "min: -.inf", "line 5: input x: min must be a number, as in 10, 2.5 or 1e6"},
		{"max: 1000", "max: 1e309", "line 5: input x: max must be a number, as in 10, 2.5 or 1e6"},
		{"nullable: false", "nullable: no", "line 5: input x: nullable must be true or false"},
		{"nullable: false", "nullable: 'false'", "line 5: input x: nullable must be true or false"},
		{"c: {type: category, max_values: 64", "c: {type: category, max_values: 65537", "line 7: input c: max_values " +
			"must be a whole number from 1 to 65536"},
		{"c: {type: category, max_values: 64, max_bytes: 64", "c: {type: category, max_bytes: 0", "line 7: input c: " +
			"max_bytes must be a whole number from 1 to 4096"},
		{"  x: {", "  '': {", "line 5: input: a name has 1 to 64 bytes and no control character"},
		{"  x: {", "  \"a\\x85\": {", "line 5: input: a name has 1 to 64 bytes and no control character"},
		{"  x: {", "  " + strings.Repeat("n", 65) + ": {", "line 5: input: a name has 1 to 64 bytes and no control " +
			"character"},
		{"  x: {", "  ~: {", "line 5: input must be a text"},
		{"  y: {", "  x: {", `line 6: input: "x" is given twice`},
		{"  y: {type: number}", "  y: number", "line 6: input y must be a mapping, as in {key: value}"},
		{"  y: {type: number}", manyFields(maxInputs), "line 5: input declares 258 fields, and must declare 1 to 256"},

		{"{name: l, ", "{", "line 8: label: name is missing"},
		{"{name: l, ", "{name: l, nullable: true, ", `line 8: label: "nullable" is not known here; known: name, type, min, max, max_values, max_bytes, integers, values`},
		{"{name: l, type: category, max_values: 64, ", "{name: l, type: text, ", "line 8: label: a label is a category, " +
			"a boolean or a number"},

		{"StandardScaler:", "Scaler:", `line 12: "Scaler" is not a known class; known: Select, union, Discard,`},
		{"StandardScaler:", "preprocessing.StandardScaler:", "a known class; write StandardScaler; known: "},
		{"StandardScaler:", "standard_scaler:", "a known class; write StandardScaler; known: "},
		{"union:", "compose.TransformerUnion:", `; River's TransformerUnion and + are "union" here`},
		{"union:", "Pipeline:", "; River's Pipeline and | are a list of steps here"},
		{"MultinomialNB: {alpha: 1}", "MinMaxScaler | GaussianNB", "; River's A | B is a list of steps here, as in [A, " +
			"B], and A + B is"},
		{"MultinomialNB: {alpha: 1}", "tree.HoeffdingTreeClassifier()", "; River's HoeffdingTreeClassifier is not here, " +
			"the nearest is GaussianNB"},
		{"MultinomialNB: {alpha: 1}", "LogisticRegression: {loss: Squared}", `line 14: "Squared" is not a known class; known: Log, Hinge`},
		{"MultinomialNB: {alpha: 1}", "LogisticRegression: {optimizer: {SGD: {lr: {InverseScaling: {power: 1}}}}}",
			"line 14: InverseScaling: learning_rate is missing: the rate of the first step (0 to 1000000)"},
		{"MultinomialNB: {alpha: 1}", "PAClassifier: {mode: 0.5}", "line 14: PAClassifier: mode must be a whole number"},
		{"with_std", "std", `line 12: StandardScaler: "std" is not known here; known: with_std`},
		{"with_std: true", "with_std: 1", "line 12: StandardScaler: with_std must be true or false"},
		{"MultinomialNB: {alpha: 1}", "MultinomialNB: {alpha: one}", "line 14: MultinomialNB: alpha must be a number"},
		{"MultinomialNB: {alpha: 1}", "MultinomialNB: 1", "line 14: MultinomialNB must be a mapping, as in {key: value}"},
		{"MultinomialNB: {alpha: 1}", "GaussianNB: {priors: 1}", `line 14: GaussianNB: "priors" is not known here; known: none`},
		{"MultinomialNB: {alpha: 1}", "{MultinomialNB: , GaussianNB: }", "line 14: a step is one class, as in " +
			"{OneHotEncoder: {drop_first: true}}; known: Select"},
		{"MultinomialNB: {alpha: 1}", "[GaussianNB]", "line 14: a step is one class"},
		{"x: Mean,", "x: Median,", `line 12: StatImputer: x: "Median" is not known; known: Mean, Mode`},
		{"x: Mean,", "x: stats.Mean(),", `"stats.Mean()" is not known; known: Mean, Mode; write Mean`},
		{"{Select: [c]}", "Renamer", "line 13: Renamer takes a new name for each column, as in {Renamer: {sex: gender}}"},
		{"{Select: [c]}", "{Renamer: {c: [x]}}", "line 13: Renamer: c must be a text"},
		{"{Select: [c]}", "FuncTransformer", "line 13: FuncTransformer takes a function for each new column, as in " +
			"{FuncTransformer: {hour: {hour: moment}}}"},
		{"{Select: [c]}", "{FuncTransformer: {z: x}}", "line 13: FuncTransformer: z takes one function with its columns"},
		{"{Select: [c]}", "{FuncTransformer: {z: {sin: x}}}", `FuncTransformer: z: "sin" is not known; known: minute, hour`},
		{"{Select: [c]}", "{FuncTransformer: {z: {clip: [x, 1e101, 1]}}}", "line 13: FuncTransformer: z: 1e101 is beyond"},
		{"x: Mean,", "x: 1e101,", "line 12: StatImputer: x must be from -1e+100 to 1e+100"},
		{"x: Mean,", "x: 0x10,", "line 12: StatImputer: x must be a number, as in 10, 2.5 or 1e6"},
		{"x: Mean,", `x: "1",`, `line 12: StatImputer: x: "1" is not known; known: Mean, Mode`},
		{"{x: Mean, y: Mean}", "{x: Mean, x: Mode}", `line 12: StatImputer: "x" is given twice`},
		{"{x: Mean, y: Mean}", "{}", "line 12: StatImputer takes a statistic for each column, as in {StatImputer: {sex: " +
			"Mode}}"},
		{"{StatImputer: {x: Mean, y: Mean}}", "StatImputer", "line 12: StatImputer takes a statistic for each column"},
		{"{Select: [c]}", "{Select: c}", "line 13: Select takes a list of columns, as in {Select: [island]}"},
		{"{Select: [c]}", "{Select: []}", "line 13: Select takes a list of columns"},
		{"{Select: [c]}", "Select", "line 13: Select takes a list of columns"},
		{"{Select: [c]}", "{Select: [[c]]}", "line 13: Select: a column must be a text"},
		{"{Select: [c]}", "union", "line 13: union takes a list of branches, each a step or a list of steps"},
		{"{Select: [c]}", "{union: [[]]}", "line 13: a branch of union is empty"},
		{"{Select: [c]}", "{Select: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "}", "line 13: nested deeper " +
			"than 32"},

		{"{window: 65536}", "&a {window: 65536}", "line 9: anchors (&a) are not read; write the value out where it is " +
			"needed"},
		{"{window: 65536}", "!!map {window: 65536}", "line 9: tags (!!map) are not read"},
		{"{window: 65536}", "{<<: {window: 1}}", `line 9: dedup: "<<" is not known here; known: window`},
		{"river-0.26", "river-0.26\n---\na: b", "line 4: the spec holds more than one YAML document"},
		{"river-0.26", "river-0.26\n---\na: [", "the spec is not YAML: "},
		{"river-0.26", "[", "the spec is not YAML: "},
		{"river-0.26", "river-0.26 # " + strings.Repeat("x", maxSpecBytes), "bytes, the most is 65536"},
	} {
		text := strings.Replace(plainSpec, c.from, c.to, 1)
		if text == plainSpec {
			t.Errorf("%q is not in the spec", c.from)
		}
		_, err := ParseSpec([]byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.99q:\n got: %v\nwant: %s", c.to, err, c.want)
		} else if n := strings.Count(err.Error(), "\n  line"); n > 1 {
			t.Errorf("%.99q: one mistake, and %d problems: %v", c.to, n, err)
		}
	}
	for text, want := range map[string]string{
		"":          "the spec is empty",
		"# nothing": "the spec is empty",
		"---\n":     "the spec is not valid:\n  line 2: the spec must be a mapping, as in {key: value}",
		"[a]":       "the spec is not valid:\n  line 1: the spec must be a mapping, as in {key: value}",
		"input: {}": "the spec is not valid:\n  line 1: the spec: name is missing\n  line 1: input declares 0 fields, " +
			"and must declare 1 to 256\n" +
			"  line 1: the spec: label is missing\n  line 1: the spec: pipeline is missing",
		"name: &n a\ninput: {*n : {type: number}}\nlabel: *n\npipeline: *n": "the spec is not valid:\n" +
			"  line 1: anchors (&n) are not read; write the value out where it is needed\n" +
			"  line 2: aliases (*n) are not read; write the value out\n" +
			"  line 3: aliases (*n) are not read; write the value out\n" +
			"  line 4: aliases (*n) are not read; write the value out",
	} {
		if _, err := ParseSpec([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got: %v\nwant: %s", text, err, want)
		}
	}
}

// manyFields is n more inputs.
func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\n  f%d: {type: number}", i)
	}
	return strings.TrimPrefix(b.String(), "\n")
}

func TestAllProblemsInTheOrderOfLines(t *testing.T) {
	_, err := ParseSpec([]byte(`pipeline:
  - Scaler
  - MultinomialNB: {beta: 1}
name: Bad Name
input:
  x: {type: number, min: 2, max: 1}
`))
	want := `the spec is not valid:
  line 1: the spec: label is missing
  line 2: "Scaler" is not a known class; known: ` + list(classNames(stepTasks...)) + `
  line 3: MultinomialNB: "beta" is not known here; known: alpha
  line 4: name must be a small letter, then up to 31 small letters, digits and hyphens: it begins every subject
  line 6: input x: min is above max`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestNoEndlessError(t *testing.T) {
	_, err := ParseSpec([]byte("pipeline: [" + strings.Repeat("Foo, ", 1000) + "]"))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 1+maxSpecLines+1 ||
		lines[len(lines)-1] != "  and 903 more" {
		t.Errorf("%d lines, the last %s", len(lines), lines[len(lines)-1])
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(plainSpec))
	for _, name := range ShippedSpecs() {
		f.Add(must(ShippedSpec(name)).YAML)
	}
	f.Add(
		[]byte(
			"name: &a b\ninput: {*a : {type: number, min: 1e999}}\nlabel: {<<: *a}\npipeline: [union: [[union: [Select]]]]",
		),
	)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSpec(data)
		if err != nil {
			return
		}
		again, err := ParseSpec(s.YAML)
		if err != nil || !bytes.Equal(again.Canonical(), s.Canonical()) {
			t.Errorf("its own YAML gives another: %v", err)
		}
		if !modelName.MatchString(s.Name) || s.Semantics != Semantics || s.DedupWindow < 0 || s.DedupWindow > maxWindow ||
			len(s.Pipeline) == 0 || len(s.Inputs) == 0 || len(s.Inputs) > maxInputs {
			t.Errorf("past the limits: %+v", s)
		}
		names := map[string]bool{}
		for _, field := range append(slices.Clone(s.Inputs), s.Label) {
			if field.Name == "" || !(field.Min <= field.Max) || field.MaxValues < 1 || field.MaxValues > maxValues ||
				field.MaxBytes < 1 ||
				field.MaxBytes > maxBytes {
				t.Errorf("past the limits: %+v", field)
			}
		}
		for _, field := range s.Inputs {
			if names[field.Name] {
				t.Errorf("%q twice", field.Name)
			}
			names[field.Name] = true
		}
		if _, err := New(s); err == nil {
			NewDecoder(s).Learn([]byte(goodEvent))
		}
	})
}
