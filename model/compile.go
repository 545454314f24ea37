package model

import (
	"fmt"
	"slices"
	"strings"
)

// maxMagnitude bounds what may reach an estimator, so that no sum or square
// of up to 2^53 events can overflow.
const maxMagnitude = 1e100

// maxLabels bounds the confusion matrix, which grows with its square.
const maxLabels = 1024

// program is a compiled pipeline: columns are slots, and no name is looked up
// any more.
type program struct {
	loads      []load
	steps      []transformer // in the order in which they learn
	classifier classifier
	numbers    int // slots of each kind
	categories int
	dummies    int
}

// load brings a declared input into the frame.
type load struct {
	input int
	slot  int // frame.nums or frame.cats, by the input's type
}

// column is what the compiler knows of a column between two steps.
type column struct {
	kind     columnKind
	name     string // dummies: the prefix of their keys
	slot     int
	nullable bool
	min, max float64        // numbers
	vocab    *vocab         // categories
	encoder  *oneHotEncoder // dummies
	order    int            // dummies: the place among the encoder's columns
}

type columnKind uint8

const (
	numberColumn columnKind = iota
	categoryColumn
	dummyColumns
)

func (k columnKind) String() string {
	return [...]string{"a number", "a category", "one-hot dummies"}[k]
}

// compiler turns a spec's pipeline into a program. It collects all problems.
type compiler struct {
	program
	problems []string
	trusted  bool // bounds are not checked: for tests of what River does past them
}

func (c *compiler) fail(s *Step, format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf("line %d: %s: %s", s.Line, s.Class, fmt.Sprintf(format, args...)))
}

// compile checks that every step gets what it can bear.
func compile(s *Spec, vocabs []vocab, trusted bool) (*program, error) {
	c := &compiler{trusted: trusted}
	if len(s.Pipeline) == 0 {
		return nil, fmt.Errorf("spec %s: the pipeline is empty", s.Name)
	}
	if s.Label.MaxValues > maxLabels {
		c.problems = append(c.problems, fmt.Sprintf("label %s: max_values is %d, the most is %d", s.Label.Name, s.Label.MaxValues, maxLabels))
	}
	c.problems = append(c.problems, s.collisions()...)
	columns := c.inputs(s, vocabs)
	last := len(s.Pipeline) - 1
	for i := range s.Pipeline[:last] {
		columns = c.step(&s.Pipeline[i], columns)
	}
	c.classify(&s.Pipeline[last], columns)
	for i := range c.problems {
		c.problems[i] = printable(c.problems[i])
	}
	if len(c.problems) > 0 {
		return nil, fmt.Errorf("spec %s does not compile:\n  %s", s.Name, strings.Join(c.problems, "\n  "))
	}
	return &c.program, nil
}

func (c *compiler) inputs(s *Spec, vocabs []vocab) []column {
	var columns []column
	for i := range s.Inputs {
		f := &s.Inputs[i]
		col := column{name: f.Name, nullable: f.Nullable, min: f.Min, max: f.Max}
		if f.Type == Category {
			col.kind, col.vocab, col.slot = categoryColumn, &vocabs[i], c.newCategory()
		} else {
			col.kind, col.slot = numberColumn, c.newNumber()
		}
		c.loads = append(c.loads, load{input: i, slot: col.slot})
		columns = append(columns, col)
	}
	return columns
}

func (c *compiler) newNumber() int   { c.numbers++; return c.numbers - 1 }
func (c *compiler) newCategory() int { c.categories++; return c.categories - 1 }
func (c *compiler) newDummies() int  { c.dummies++; return c.dummies - 1 }

// step compiles one transformer and returns the columns it gives.
func (c *compiler) step(s *Step, in []column) []column {
	switch s.Class {
	case "Select":
		return c.selects(s, in)
	case "union":
		return c.union(s, in)
	case "StatImputer":
		return c.imputer(s, in)
	case "OneHotEncoder":
		return c.oneHot(s, in)
	case "StandardScaler":
		return c.scaler(s, in)
	case "MultinomialNB", "GaussianNB":
		c.fail(s, "a classifier must be the pipeline's last step")
	default:
		c.fail(s, "not a known class")
	}
	return in
}

func (c *compiler) selects(s *Step, in []column) []column {
	var out []column
	for _, name := range s.Columns {
		switch i := slices.IndexFunc(in, func(col column) bool { return col.kind != dummyColumns && col.name == name }); {
		case i < 0:
			c.fail(s, "no column %q here; there are: %s", name, names(in))
		case slices.ContainsFunc(out, func(col column) bool { return col.name == name }):
			c.fail(s, "column %q is named twice", name)
		default:
			out = append(out, in[i])
		}
	}
	if len(s.Columns) == 0 {
		c.fail(s, "names no column")
	}
	return out
}

// union runs its branches side by side. The last branch's columns come
// first: River adds them up in that order, and the order of a sum decides
// its last bits.
func (c *compiler) union(s *Step, in []column) []column {
	var out []column
	for _, branch := range slices.Backward(c.branches(s, in)) {
		out = append(out, branch...)
	}
	c.distinct(s, out)
	return out
}

func (c *compiler) branches(s *Step, in []column) [][]column {
	var out [][]column
	for _, branch := range s.Branches {
		columns := in
		for i := range branch {
			columns = c.step(&branch[i], columns)
		}
		out = append(out, columns)
	}
	return out
}

// distinct refuses two columns of one name: River would quietly let one win.
func (c *compiler) distinct(s *Step, columns []column) {
	for i, a := range columns {
		if slices.ContainsFunc(columns[i+1:], func(b column) bool { return a.name == b.name }) {
			c.fail(s, "branches give the column %q twice; rename one", a.name)
		}
	}
}

// meets reports whether a dummy of one column, for some value, has the text
// that another column's feature can have: River would take the two for one.
func meets(a, b column) bool {
	dummyOf := func(a, b column) bool { return a.kind == dummyColumns && strings.HasPrefix(b.name, a.name+"_") }
	return dummyOf(a, b) || dummyOf(b, a)
}

// quote has the dummies that another feature can have the text of named by
// column and value.
func quote(columns []column) {
	for i, a := range columns {
		if a.kind == dummyColumns && slices.ContainsFunc(columns, func(b column) bool { return meets(a, b) }) {
			columns[i].encoder.columns[a.order].quoted = true
		}
	}
}

func (c *compiler) imputer(s *Step, in []column) []column {
	out := slices.Clone(in)
	for _, impute := range s.Imputes {
		i := slices.IndexFunc(in, func(col column) bool { return col.name == impute.Column && col.kind != dummyColumns })
		if i < 0 {
			c.fail(s, "no column %q here; there are: %s", impute.Column, names(in))
			continue
		}
		col := &out[i]
		switch {
		case impute.Stat == "Mean" && col.kind == numberColumn:
			t := &meanImputer{name: col.name, in: col.slot, out: c.newNumber()}
			c.steps = append(c.steps, t)
			col.slot, col.nullable = t.out, false
			col.min, col.max = min(col.min, 0), max(col.max, 0) // the mean of nothing is 0
		case impute.Stat == "Mode" && col.kind == categoryColumn:
			t := &modeImputer{name: col.name, in: col.slot, out: c.newCategory(), vocab: col.vocab, mode: null}
			c.steps = append(c.steps, t)
			col.slot = t.out // still null before any value
		default:
			c.fail(s, "%s does not fit %q, which is %s (Mean is for numbers, Mode for categories)", impute.Stat, col.name, col.kind)
		}
	}
	return out
}

func (c *compiler) oneHot(s *Step, in []column) []column {
	t := &oneHotEncoder{out: c.newDummies(), dropFirst: s.DropFirst, min: unknown}
	var out []column
	for _, col := range in {
		if col.kind != categoryColumn {
			c.fail(s, "column %q is %s, and only categories are encoded; put a Select before", col.name, col.kind)
			continue
		}
		out = append(out, column{kind: dummyColumns, name: col.name, encoder: t, order: len(t.columns)})
		t.columns = append(t.columns, oneHotColumn{in: col.slot, vocab: col.vocab, name: col.name, prefix: col.name + "_", none: unknown})
		t.ambiguous = t.ambiguous || slices.ContainsFunc(out, func(other column) bool { return meets(other, out[len(out)-1]) })
	}
	c.steps = append(c.steps, t)
	c.distinct(s, out)
	return out
}

func (c *compiler) scaler(s *Step, in []column) []column {
	out := slices.Clone(in)
	for i := range out {
		col := &out[i]
		if !c.plainNumber(s, col) {
			continue
		}
		t := &standardScaler{name: col.name, in: col.slot, out: c.newNumber(), withStd: s.WithStd}
		c.steps = append(c.steps, t)
		col.slot = t.out
		// A scaled value lies on both sides of 0. Without its deviation it
		// stays within the column's width.
		col.min, col.max = -maxMagnitude, maxMagnitude
	}
	return out
}

func (c *compiler) classify(s *Step, in []column) {
	var numbers []numberFeature
	var encoders []*oneHotEncoder
	var order []summand
	for i := range in {
		switch col := &in[i]; {
		case s.Class == "MultinomialNB" && col.kind == dummyColumns:
			if !slices.Contains(encoders, col.encoder) {
				order = append(order, summand{dummies: true, i: len(encoders)})
				encoders = append(encoders, col.encoder)
			}
		case c.plainNumber(s, col):
			if s.Class == "MultinomialNB" && col.min < 0 && !c.trusted {
				c.fail(s, "column %q may be negative, which it cannot bear; give its input a min of 0 or more, and no StandardScaler before", col.name)
			}
			order = append(order, summand{i: len(numbers)})
			numbers = append(numbers, numberFeature{name: col.name, in: col.slot})
		}
	}
	if len(in) == 0 {
		c.fail(s, "gets no column")
	}
	quote(in)
	switch s.Class {
	case "MultinomialNB":
		if s.Alpha < 1e-9 || s.Alpha > 1e9 {
			c.fail(s, "alpha is %v, and must be from 1e-9 to 1e9", s.Alpha)
		}
		c.classifier = &multinomialNB{alpha: s.Alpha, numbers: numbers, encoders: encoders, order: order}
	case "GaussianNB":
		c.classifier = &gaussianNB{numbers: numbers}
	default:
		c.fail(s, "the pipeline must end in a classifier: MultinomialNB or GaussianNB")
	}
}

// plainNumber tells whether a column is a number that is never null and
// whose bounds keep every later sum finite, and says what is missing.
func (c *compiler) plainNumber(s *Step, col *column) bool {
	switch {
	case col.kind == categoryColumn:
		c.fail(s, "column %q is a category; put a OneHotEncoder or a Select before", col.name)
	case col.kind == dummyColumns:
		c.fail(s, "column %q is one-hot dummies, which only MultinomialNB takes", col.name)
	case col.nullable:
		c.fail(s, "column %q may be null; put a StatImputer before, as in {StatImputer: {%s: Mean}}", col.name, col.name)
	case !c.trusted && col.min < -maxMagnitude:
		c.fail(s, "column %q has no lower bound; give its input a min (%g at the least)", col.name, -maxMagnitude)
	case !c.trusted && col.max > maxMagnitude:
		c.fail(s, "column %q has no upper bound; give its input a max (%g at the most)", col.name, maxMagnitude)
	default:
		return true
	}
	return false
}

func names(columns []column) string {
	var out []string
	for _, col := range columns {
		out = append(out, col.name)
	}
	return strings.Join(out, ", ")
}
