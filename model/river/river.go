// Package river says what a component of a pipeline is: its contract, its
// declared parameters, the builder that compiles it into a pipeline, the frame
// in which an event passes through, the coder of its state, and arithmetic
// that gives the same bits on every CPU. The components are in the packages
// below, one file each, in families that have the names of River's modules.
//
// Everything here is pure, like the model that uses it: no I/O, no clock, no
// goroutine, no randomness, no order of a map. A component knows nothing of
// the fold: not of messages, ids, sequences, digests or other components.
package river

// Component is one part of a pipeline, with everything that it has learned.
// The fold drives it, from one goroutine. A component is
//
//   - deterministic: its state is a function of the events that it learned, in
//     their order, and the bits of its results are the same on every CPU;
//   - total: input within the declared bounds never makes it panic, and never
//     gives a number that is not finite;
//   - bounded: its encoded state never exceeds what it declared when it was
//     built;
//   - quiet: once warm, neither learning nor a prediction allocates.
type Component interface {
	// Learn learns the event in f. Its Target is known, and what comes out of
	// the steps before is in its slots.
	Learn(f *Frame)
	// Code reads or writes the whole state, field by field, in one fixed order;
	// see State. What is derived from the state is rebuilt after reading.
	Code(s *State)
	// Report describes what was learned, under the names that River's
	// attributes have.
	Report(r Report)
}

// Transformer is a step that hands columns on. As in River's pipeline, learning
// an event first updates a step, and then transforms the event with the updated
// statistics. A prediction only transforms.
type Transformer interface {
	Component
	// Transform reads the slots of its input columns and writes slots of its
	// own. It does not change the state.
	Transform(f *Frame)
}

// Supervised is a Transformer that learns from the label. As in River, it
// transforms an event first, and learns it afterwards.
type Supervised interface {
	Transformer
	Supervised()
}

// Classifier is a last step that gives probabilities. Classes are the labels'
// numbers in the order in which they were first learned; a class exists once an
// event of it was learned.
type Classifier interface {
	Component
	// Proba sets p to the probability of each class, for the event in f.
	// len(p) is the number of classes, one at least. It does not change the
	// state, but may keep what it computed until the next Learn.
	Proba(f *Frame, p []float64)
}

// BinaryClassifier is a last step that says how likely it is that a label is
// true. Unlike a Classifier it answers before anything was learned.
type BinaryClassifier interface {
	Component
	// ProbaTrue is the probability of true, for the event in f. It does not
	// change the state, but may keep what it computed until the next Learn.
	ProbaTrue(f *Frame) float64
}

// Regressor is a last step that predicts a number. It answers before anything
// was learned.
type Regressor interface {
	Component
	// Predict is the number for the event in f, finite and at most MaxMagnitude
	// in size. It does not change the state, but may keep what it computed until
	// the next Learn.
	Predict(f *Frame) float64
}

// Explainer is a last step that can take a prediction apart. The sums over
// what it adds, class by class, are in the declared Unit, from which the
// probabilities follow; see Unit.
type Explainer interface {
	Unit() Unit
	// Explain calls add for each feature that adds something to the prediction
	// for the event in f, after it was predicted. The feature "" is what is
	// added before any. byClass is the callee's to keep: of a BinaryClassifier
	// it is of false and of true, and of a Regressor it has one element.
	Explain(f *Frame, add func(feature string, value float64, byClass []float64))
}

// Unit is what an explanation adds up to. It is a key of the replies that hold
// one.
type Unit string

// The units. Of the first two the probabilities are the softmax.
const (
	// LogLikelihood is the natural logarithm of a class's joint likelihood.
	LogLikelihood Unit = "log_likelihood"
	// Logit is a class's score in a linear model; only differences between
	// classes mean something, and one more multiplies the odds by e.
	Logit Unit = "logit"
	// LabelUnit is the label's own unit: the sum is the number predicted.
	LabelUnit Unit = "label"
)

// Task is what a class is for, and so where it may stand.
type Task uint8

// The tasks.
const (
	Transformation       Task = iota + 1 // any step but the last
	Classification                       // the last step, for a label that is a category or a boolean
	Optimization                         // a parameter of other classes, like all below but the last steps
	BinaryClassification                 // the last step, for a label that is a boolean
	Regression                           // the last step, for a label that is a number
	BinaryLoss                           // of a label that is a boolean
	RegressionLoss                       // of a label that is a number
	Scheduling                           // of a learning rate
	Statistical                          // a running statistic
)

func (t Task) String() string {
	return [...]string{"none", "transformer", "classifier", "optimizer", "binary classifier", "regressor",
		"loss of a boolean", "loss of a number", "scheduler", "statistic"}[t]
}

// Last reports whether a class of the task ends a pipeline.
func (t Task) Last() bool {
	return t == Classification || t == BinaryClassification || t == Regression
}

// Class is a kind of component that a spec can name. There is one for each of
// River's classes that Lockstep has, and the registry lists them.
type Class struct {
	Name    string // in a spec, which is River's but for union
	Source  string // River's class, with its module
	Summary string // one sentence for the table of components
	Task    Task
	Params  []Param // in the order of River's constructor
	// Build adds the class's components to a pipeline, with the arguments of
	// one step. It reports what does not fit; it is never called for a step
	// whose arguments are not valid. A class that is a parameter has none.
	Build func(b *Builder)
	// Make makes what a class that is a parameter stands for; who uses it knows
	// its type.
	Make func(s *Step) any
}

// Step is a class with its arguments: one for each parameter, in their order.
type Step struct {
	Class *Class
	Args  []any
	Line  int // in the YAML, for errors; not part of the contract
}
