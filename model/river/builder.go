package river

import (
	"fmt"
	"slices"
	"strings"
)

// MaxMagnitude bounds what may reach an estimator, so that no sum or square of
// up to 2^53 events can overflow.
const MaxMagnitude = 1e100

// Program is a compiled pipeline: columns are slots, and no name is looked up
// any more.
type Program struct {
	Steps []Transformer // in the order in which they learn

	// The last step, by its task: one of the three.
	Classifier Classifier
	Binary     BinaryClassifier
	Regressor  Regressor

	// Bounds are how many bytes the state of each step, and then that of the
	// last one, takes at most.
	Bounds []int

	slots      [columnKinds]int // of each kind
	supervised []Supervised     // of the steps
}

// Last is the pipeline's last step.
func (p *Program) Last() Component {
	switch {
	case p.Classifier != nil:
		return p.Classifier
	case p.Binary != nil:
		return p.Binary
	default:
		return p.Regressor
	}
}

// Task is the last step's.
func (p *Program) Task() Task {
	switch {
	case p.Classifier != nil:
		return Classification
	case p.Binary != nil:
		return BinaryClassification
	default:
		return Regression
	}
}

// Transform brings an event to the last step, as a prediction does.
func (p *Program) Transform(f *Frame) {
	for _, step := range p.Steps {
		step.Transform(f)
	}
}

// Learn learns the event in f: each step learns it and hands on what it makes
// of it, and those that learn from the label do so after all others.
func (p *Program) Learn(f *Frame) {
	for _, step := range p.Steps {
		if _, later := step.(Supervised); !later {
			step.Learn(f)
		}
		step.Transform(f)
	}
	for _, step := range p.supervised {
		step.Learn(f)
	}
	p.Last().Learn(f)
}

// NewFrame makes a frame for the program.
func (p *Program) NewFrame() Frame {
	return Frame{
		Numbers:    make([]Number, p.slots[NumberColumn]),
		Categories: make([]Category, p.slots[CategoryColumn]),
		Dummies:    make([]Dummies, p.slots[DummyColumn]),
		Texts:      make([]Text, p.slots[TextColumn]),
	}
}

// Limits are what the classes may rely on.
type Limits struct {
	Tasks   []Task // that the last step may have
	Label   string // what the label is, for errors: "a category"
	Classes int    // of the label, at most

	TargetMin, TargetMax float64 // of a label that is a number

	// Unbounded: numbers need no bounds, and may be negative anywhere. For
	// tests of what River does then.
	Unbounded bool
}

// compiler turns the steps of a pipeline into a program. It collects all
// problems.
type compiler struct {
	Program
	limits   Limits
	problems []string
}

// Compile checks that every step gets what it supports, and builds them. The
// inputs make the columns that the first step gets, with slots from NewSlot.
func Compile(steps []Step, limits Limits, inputs func(newSlot func(ColumnKind) int) []Column) (*Program, []string) {
	c := &compiler{limits: limits}
	if len(steps) == 0 {
		return nil, []string{"the pipeline is empty"}
	}
	columns := inputs(c.newSlot)
	last := len(steps) - 1
	for i := range steps[:last] {
		columns = c.build(&steps[i], columns)
	}
	if end := &steps[last]; !slices.Contains(limits.Tasks, end.Class.Task) {
		c.fail(end, "the label is %s, so the pipeline must end in a %s", limits.Label, either(limits.Tasks))
	} else {
		end.Class.Build(&Builder{In: columns, step: end, c: c})
	}
	return &c.Program, c.problems
}

// either names tasks, as in "classifier or binary classifier".
func either(tasks []Task) string {
	var names []string
	for _, t := range tasks {
		names = append(names, t.String())
	}
	return strings.Join(names, " or ")
}

// build compiles one transformer, and returns the columns it gives.
func (c *compiler) build(s *Step, in []Column) []Column {
	if s.Class.Task != Transformation {
		c.fail(s, "a %s must be the pipeline's last step", s.Class.Task)
		return in
	}
	b := &Builder{In: in, Out: in, step: s, c: c}
	s.Class.Build(b)
	return b.Out
}

func (c *compiler) fail(s *Step, format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf("line %d: %s: %s", s.Line, s.Class.Name, fmt.Sprintf(format, args...)))
}

func (c *compiler) newSlot(kind ColumnKind) int {
	if kind == TimestampColumn {
		kind = NumberColumn // it is one in the frame
	}
	c.slots[kind]++
	return c.slots[kind] - 1
}

// Builder adds the components of one step to a pipeline.
type Builder struct {
	In  []Column // what the step gets; not to be changed
	Out []Column // what it hands on; In, unless Build sets it

	step *Step
	c    *compiler
}

// Step is the step that is built, with its arguments; see Arg.
func (b *Builder) Step() *Step { return b.step }

// Limits are what may be relied on.
func (b *Builder) Limits() Limits { return b.c.limits }

// Fail reports a problem of the step. All are collected.
func (b *Builder) Fail(format string, args ...any) { b.c.fail(b.step, format, args...) }

// NewSlot makes a slot of the frame for a column of a kind.
func (b *Builder) NewSlot(kind ColumnKind) int { return b.c.newSlot(kind) }

// AddTransformer adds a component. It learns and transforms after those that
// were added before. bound is how many bytes its state takes at most.
func (b *Builder) AddTransformer(t Transformer, bound int) {
	b.c.Steps = append(b.c.Steps, t)
	if s, ok := t.(Supervised); ok {
		b.c.supervised = append(b.c.supervised, s)
	}
	b.c.Bounds = append(b.c.Bounds, bound)
}

// AddClassifier adds the component that ends the pipeline.
func (b *Builder) AddClassifier(k Classifier, bound int) {
	b.c.Classifier = k
	b.c.Bounds = append(b.c.Bounds, bound)
}

// AddBinary adds the component that ends the pipeline.
func (b *Builder) AddBinary(k BinaryClassifier, bound int) {
	b.c.Binary = k
	b.c.Bounds = append(b.c.Bounds, bound)
}

// AddRegressor adds the component that ends the pipeline.
func (b *Builder) AddRegressor(k Regressor, bound int) {
	b.c.Regressor = k
	b.c.Bounds = append(b.c.Bounds, bound)
}

// Copies returns a function that makes models of a nested class, each of its
// own, on the columns that come in.
func (b *Builder) Copies(s Step) func() *Program {
	first := true
	return func() *Program {
		c := &compiler{limits: b.c.limits}
		s.Class.Build(&Builder{In: b.In, step: &s, c: c})
		if first {
			b.c.problems, first = append(b.c.problems, c.problems...), false
		}
		return &c.Program
	}
}

// NumericTarget reports whether the label is a number, with bounds, or a
// boolean, which counts as 0 or 1. If not, it reports that.
func (b *Builder) NumericTarget() bool {
	if slices.Contains(b.c.limits.Tasks, BinaryClassification) || slices.Contains(b.c.limits.Tasks, Regression) {
		return b.FiniteTarget()
	}
	b.Fail("the label is %s; this needs a number or a boolean", b.c.limits.Label)
	return false
}

// FiniteTarget reports whether the label is a number with bounds that keep
// every later sum finite. If not, it reports what is missing.
func (b *Builder) FiniteTarget() bool {
	switch l := &b.c.limits; {
	case l.Unbounded:
	case l.TargetMin < -MaxMagnitude:
		b.Fail("the label has no lower bound; give it a min (%g at the least)", -MaxMagnitude)
		return false
	case l.TargetMax > MaxMagnitude:
		b.Fail("the label has no upper bound; give it a max (%g at the most)", MaxMagnitude)
		return false
	}
	return true
}

// Branches builds branches of steps side by side, each on all that comes in,
// and returns the columns that each gives.
func (b *Builder) Branches(branches [][]Step) [][]Column {
	var out [][]Column
	for _, branch := range branches {
		columns := b.In
		for i := range branch {
			columns = b.c.build(&branch[i], columns)
		}
		out = append(out, columns)
	}
	return out
}

// Find is the index of a column in In, or -1, which is reported. Dummies have
// no name that a step could ask for.
func (b *Builder) Find(name string) int {
	i := slices.IndexFunc(b.In, func(col Column) bool { return col.Kind != DummyColumn && col.Name == name })
	if i < 0 {
		b.Fail("no column %q here; there are: %s", name, names(b.In))
	}
	return i
}

// Finite reports whether a column is a number that is never null, with bounds
// that keep every later sum finite. If not, it reports what is missing.
func (b *Builder) Finite(col *Column) bool {
	switch unbounded := b.c.limits.Unbounded; {
	case col.Kind == CategoryColumn:
		b.Fail("column %q is a category; put a OneHotEncoder or a Select before", col.Name)
	case col.Kind == DummyColumn:
		b.Fail("column %q is one-hot dummies, which only the pipeline's last step takes", col.Name)
	case col.Kind == TimestampColumn:
		b.Fail(
			"column %q is a timestamp; put a FuncTransformer before, as in {FuncTransformer: {hour: {hour: %s}}}", col.Name,
			col.Name,
		)
	case col.Kind == TextColumn:
		b.Fail("column %q is a text, which no step here takes", col.Name)
	case col.Nullable:
		b.Fail("column %q may be null; put a StatImputer before, as in {StatImputer: {%s: Mean}}", col.Name, col.Name)
	case !unbounded && col.Min < -MaxMagnitude:
		b.Fail("column %q has no lower bound; give its input a min (%g at the least)", col.Name, -MaxMagnitude)
	case !unbounded && col.Max > MaxMagnitude:
		b.Fail("column %q has no upper bound; give its input a max (%g at the most)", col.Name, MaxMagnitude)
	default:
		return true
	}
	return false
}

// NonNegative reports each number that may be negative.
func (b *Builder) NonNegative() {
	for i := range b.In {
		if col := &b.In[i]; col.Kind == NumberColumn && col.Min < 0 && !b.c.limits.Unbounded {
			b.Fail(
				"column %q may be negative, which is not supported; give its input a min of 0 or more, and no StandardScaler "+
					"before",
				col.Name,
			)
		}
	}
}

// Column is what is known of a column between two steps.
type Column struct {
	Kind     ColumnKind
	Name     string
	Slot     int // of the frame's Numbers, Categories, Dummies or Texts
	Nullable bool

	Min, Max float64 // of a number

	Vocab     *Vocab // of a category
	MaxValues int
	MaxBytes  int

	Encoder Encoder // of dummies, with all columns of that encoder
	Index   int32   // of dummies: which of the encoder's columns
}

// ColumnKind is what a column holds.
type ColumnKind uint8

// The kinds.
const (
	NumberColumn ColumnKind = iota
	CategoryColumn
	DummyColumn
	TimestampColumn // seconds since 1970; a Number in the frame
	TextColumn

	columnKinds = iota
)

func (k ColumnKind) String() string {
	return [...]string{"a number", "a category", "one-hot dummies", "a timestamp", "a text"}[k]
}

func names(columns []Column) string {
	var out []string
	for _, col := range columns {
		out = append(out, col.Name)
	}
	return strings.Join(out, ", ")
}
