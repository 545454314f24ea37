// Package model is the replicated state machine: a River pipeline, declared
// in a spec, that learns from a log of events and predicts.
//
// The state after a sequence is a function of the spec and of the messages up
// to it, and of nothing else. So the package has no clock, no randomness, no
// I/O and no goroutine; it never depends on the order of a map; and it uses
// only arithmetic that gives the same bits on every CPU (see math.go).
package model

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"lockstep/model/river"
)

// Message is one message of the log.
type Message struct {
	Seq     uint64 // the stream sequence
	Subject string // what follows the model's name: "learn", or "ctl." and a kind
	ID      string // the publisher's Nats-Msg-Id, or empty
	Data    []byte
	// Time is when the server stored it, in nanoseconds since 1970; 0 outside
	// a log. It tells a message from one like it in another history, and the
	// fold makes nothing else of it.
	Time int64
}

// Subjects of a model's log.
const (
	SubjectLearn      = "learn"
	SubjectGenesis    = "ctl.genesis"
	SubjectCheckpoint = "ctl.checkpoint"
)

// Verdict is what the fold did with an event.
type Verdict uint8

// The verdicts.
const (
	Learned Verdict = iota + 1
	Rejected
	Duplicate
)

func (v Verdict) String() string {
	return [...]string{"none", "learned", "rejected", "duplicate"}[v]
}

// Outcome is what the fold said of one event.
type Outcome struct {
	Verdict Verdict
	// Answer is this event's when learned, and the first one's when the event
	// repeats its id.
	Answer Answer
	// Conflict: the event repeats an id with another payload.
	Conflict bool
	// Proba is what was predicted before learning, by class, as in Labels. It
	// is this outcome's own part of the Result, and as long valid.
	Proba []float64
	// Problems say why an event was rejected.
	Problems []Problem
}

// Result is what the fold made of one message. It is valid until the next
// Apply.
type Result struct {
	Seq      uint64
	Batch    bool      // the message held an array
	Outcomes []Outcome // one per event; none for a control event that was accepted

	proba []float64 // all outcomes' probabilities, one after the other
}

// keep copies an outcome's probabilities to where no later one can change
// them. If the room has to grow, the outcomes before keep what they have.
func (r *Result) keep(proba []float64) []float64 {
	from := len(r.proba)
	r.proba = append(r.proba, proba...)
	return r.proba[from:len(r.proba):len(r.proba)]
}

// Prediction is what the model says of a row.
type Prediction struct {
	Label Target
	Known bool      // false: nothing has been learned, Label is empty
	Proba []float64 // by class, as in Labels, none of a number; valid until the model is used again
	class int
}

// Class is the label's place in Labels, -1 if there is none.
func (p Prediction) Class() int { return p.class }

// Model is one replica's state. It is not safe for concurrent use.
type Model struct {
	spec     *Spec
	contract [32]byte
	program  *river.Program
	loads    []load

	// The state. What is derived from it says so where it is declared.
	seq         uint64
	incarnation string
	tip         [32]byte // hash of the last message
	logChain    [32]byte
	stateChain  [32]byte
	learned     uint64
	rejected    uint64
	duplicates  uint64
	vocabs      []river.Vocab // by input; of numbers unused
	labels      river.Vocab
	metrics     Metrics
	ids         window

	digests digests // derived

	// Scratch, reused so that the hot path does not allocate.
	entry  *Entry // of Apply
	frame  river.Frame
	proba  []float64
	said   []byte // the state chain, and what it absorbs of a message
	result Result
	hasher hasher
}

// New compiles a spec into a model that has learned nothing. The error names
// each step that could meet what it cannot bear, and what is missing.
func New(s *Spec) (*Model, error) { return build(s, false) }

func build(s *Spec, unbounded bool) (*Model, error) {
	m := &Model{
		spec: s, contract: s.Contract(), entry: NewEntry(s), labels: river.NewVocab(),
		ids: newWindow(s.DedupWindow),
	}
	m.vocabs = make([]river.Vocab, len(s.Inputs))
	for i := range m.vocabs {
		m.vocabs[i] = river.NewVocab()
	}
	if err := m.compile(unbounded); err != nil {
		return nil, err
	}
	if m.program.Binary != nil { // its classes are known before any is learned
		m.labels.Add(falseText)
		m.labels.Add(trueText)
	}
	m.metrics.kind = s.Label.Type
	m.digests = newDigests(m)
	return m, nil
}

// Apply folds the next message into the state. It is total: whatever the
// message holds, it returns, and every replica of the same contract makes the
// same of it. The caller checks that sequences follow each other.
func (m *Model) Apply(msg Message) *Result {
	m.entry.Read(msg)
	return m.ApplyEntry(m.entry)
}

// ApplyEntry is Apply of a message that was read already, by the same spec.
func (m *Model) ApplyEntry(e *Entry) *Result {
	m.seq, m.tip = e.Seq, e.tip
	m.logChain = sha256.Sum256(append(append(m.said[:0], m.logChain[:]...), m.tip[:]...))
	m.said = append(m.said[:0], m.stateChain[:]...)
	m.result = Result{Seq: e.Seq, Batch: e.batch, Outcomes: m.result.Outcomes[:0], proba: m.result.proba[:0]}
	if e.Subject == SubjectLearn {
		// What is said of two events can be the same, and their states not.
		m.said = append(m.said, e.content[:]...)
		m.applyLearn(e)
	} else {
		m.applyControl(&e.Message)
	}
	m.stateChain = sha256.Sum256(m.said)
	return &m.result
}

func (m *Model) applyControl(msg *Message) {
	switch msg.Subject {
	case SubjectCheckpoint:
	case SubjectGenesis:
		g, err := ParseGenesis(msg.Data)
		if err != nil || msg.Seq != 1 {
			m.reject(Problem{Loc: []any{}, Msg: "Only the log's first message is its genesis", Type: "genesis"})
			return
		}
		m.incarnation = g.Incarnation
	default:
		m.reject(
			Problem{
				Loc: []any{}, Msg: fmt.Sprintf("Control events of the kind %q are not known", msg.Subject),
				Type: "unknown_control",
			},
		)
	}
}

func (m *Model) applyLearn(e *Entry) {
	if e.err != nil {
		m.reject(problems(e.err)...)
		return
	}
	for i := range e.events {
		m.learn(e.Seq, i, &e.events[i], &e.names[i])
	}
}

func problems(err error) []Problem {
	if invalid, ok := err.(*InvalidError); ok {
		return invalid.Problems
	}
	return []Problem{{Loc: []any{}, Msg: err.Error(), Type: "invalid"}}
}

// learn predicts one event, scores the prediction, and then learns the event.
func (m *Model) learn(seq uint64, index int, e *Event, name *eventName) {
	if len(e.Problems) > 0 {
		m.reject(e.Problems...)
		return
	}
	if name.named {
		if first, found := m.ids.find(name.key); found {
			m.repeat(first, first.payload != name.payload)
			return
		}
	}
	if full := m.Full(e, index, m.result.Batch); len(full) > 0 {
		m.reject(full...)
		return
	}
	p := m.Predict(e.Row)
	label, predicted := m.score(e, p)
	m.update()
	answer := Answer{
		Seq: seq, Index: uint64(index), Learned: m.learned, Label: m.targetOf(label),
		Predicted: p.Label, Known: p.Known,
	}
	if name.named {
		m.ids.remember(
			idEntry{
				key: name.key, payload: name.payload, seq: seq, index: uint64(index),
				learned: m.learned, label: label, predicted: predicted,
			},
		)
	}
	m.say(Outcome{Verdict: Learned, Answer: answer, Proba: m.result.keep(p.Proba)})
	if m.spec.Label.Type == Number {
		m.said = binary.LittleEndian.AppendUint64(m.said, uint64(predicted))
	}
	for _, v := range p.Proba {
		m.said = binary.LittleEndian.AppendUint64(m.said, math.Float64bits(v))
	}
}

// score counts a prediction before its event is learned, and puts the event's
// label into the frame.
func (m *Model) score(e *Event, p Prediction) (label, predicted told) {
	if m.spec.Label.Type == Number {
		m.frame.Y = e.Label.Num
		m.metrics.updateNumber(e.Label.Num, p.Label.Num)
		return toldNumber(e.Label.Num), toldNumber(p.Label.Num)
	}
	text := e.labelText(m.spec)
	class, proba := int(m.labels.Find(text)), m.probaOf(text, p)
	if class == int(river.Unknown) {
		class = int(m.labels.Add(string(text)))
	}
	m.metrics.update(class, p.class, proba)
	if m.spec.Label.Type == Boolean {
		m.metrics.roc.update(int(e.Label.Num), m.probaOf(trueBytes, p))
	}
	m.frame.Target, m.frame.Y = class, e.Label.Num
	return toldClass(class), toldClass(p.class)
}

// probaOf is the probability that a prediction gave to a label, 0 if it knew
// none.
func (m *Model) probaOf(label []byte, p Prediction) float64 {
	if class := int(m.labels.Find(label)); class >= 0 && class < len(p.Proba) {
		return p.Proba[class]
	}
	return 0
}

// targetOf is what was said, as a label.
func (m *Model) targetOf(s told) Target {
	if m.spec.Label.Type == Number {
		return Target{Type: Number, Num: s.number()}
	}
	return Target{Type: m.spec.Label.Type, Text: m.labels.Texts[s.class()]}
}

// update learns the event that was predicted last and is still in the frame.
// It was checked in full: nothing here can fail.
func (m *Model) update() {
	for _, l := range m.loads {
		if m.spec.Inputs[l.input].Type != Category {
			continue
		}
		if x := &m.frame.Categories[l.slot]; x.ID == river.Unknown {
			x.ID = m.vocabs[l.input].Add(string(x.Text))
		}
	}
	m.program.Learn(&m.frame)
	m.learned++
	m.digests.stale = true
}

// Full names each new value of an event that the spec's max_values has no
// room for any more: the fold would reject the event.
func (m *Model) Full(e *Event, index int, batch bool) []Problem {
	var out []Problem
	add := func(f *Field, loc ...any) {
		if batch {
			loc = append([]any{index}, loc...)
		}
		out = append(
			out,
			Problem{
				Loc:  loc,
				Msg:  fmt.Sprintf("There is room for %d different values, and this is one more", f.MaxValues),
				Type: "too_many_values",
			},
		)
	}
	for i := range m.spec.Inputs {
		f := &m.spec.Inputs[i]
		if v := &e.Row[i]; f.Type == Category && !f.Overflow && !v.Null && len(m.vocabs[i].Texts) >= f.MaxValues &&
			m.vocabs[i].Find(v.Text) == river.Unknown {
			add(f, "attributes", f.Name)
		}
	}
	if f := &m.spec.Label; f.Type == Category && len(m.labels.Texts) >= f.MaxValues &&
		m.labels.Find(e.Label.Text) == river.Unknown {
		add(f, f.Name)
	}
	return out
}

func (m *Model) repeat(first *idEntry, conflict bool) {
	m.duplicates++
	m.say(Outcome{Verdict: Duplicate, Answer: m.answer(first), Conflict: conflict})
}

func (m *Model) answer(e *idEntry) Answer {
	a := Answer{Seq: e.seq, Index: e.index, Learned: e.learned, Label: m.targetOf(e.label)}
	if a.Known = m.spec.Label.Type == Number || e.predicted.class() != none; a.Known {
		a.Predicted = m.targetOf(e.predicted)
	}
	return a
}

func (m *Model) reject(p ...Problem) {
	m.rejected++
	m.say(Outcome{Verdict: Rejected, Problems: p})
	m.said = append(m.said, p[0].Type...)
}

// say records an outcome, for the caller and for the state chain.
func (m *Model) say(o Outcome) {
	m.result.Outcomes = append(m.result.Outcomes, o)
	m.said = append(m.said, byte(o.Verdict))
	for _, n := range [...]uint64{o.Answer.Seq, o.Answer.Index, o.Answer.Learned} {
		m.said = binary.LittleEndian.AppendUint64(m.said, n)
	}
}

// load brings a row into the frame.
func (m *Model) load(row Row) {
	for _, l := range m.loads {
		v := &row[l.input]
		if !m.spec.Inputs[l.input].Type.IsText() {
			m.frame.Numbers[l.slot] = river.Number{V: v.Num, Null: v.Null}
			continue
		}
		if m.spec.Inputs[l.input].Type == Text {
			m.frame.Texts[l.slot] = river.Text{V: v.Text, Null: v.Null}
			continue
		}
		x := river.Category{ID: river.Null}
		if !v.Null {
			x = m.category(l.input, v.Text)
		}
		m.frame.Categories[l.slot] = x
	}
}

// category is a text as a value of an input. Where the input has overflow, a
// text that would take the last place is the shared value, which takes it.
func (m *Model) category(input int, text []byte) river.Category {
	f, vocab := &m.spec.Inputs[input], &m.vocabs[input]
	x := river.Category{ID: vocab.Find(text), Text: text}
	if x.ID == river.Unknown && f.Overflow && len(vocab.Texts) >= f.MaxValues-1 {
		x = river.Category{ID: vocab.Find(overflowText), Text: overflowText}
	}
	return x
}

var overflowText = []byte(OverflowValue)

// Predict says which label a row has. It changes nothing that a replica's
// state or a later prediction depends on.
func (m *Model) Predict(row Row) Prediction {
	m.transform(row)
	switch {
	case m.program.Regressor != nil:
		return Prediction{Label: Target{Type: Number, Num: m.program.Regressor.Predict(&m.frame)}, Known: true, class: none}
	case m.program.Binary != nil:
		p := m.program.Binary.ProbaTrue(&m.frame)
		m.proba = append(m.proba[:0], 1-p, p)
	default:
		if len(m.labels.Texts) == 0 {
			return Prediction{class: none}
		}
		m.proba = river.Grow(m.proba, len(m.labels.Texts)-1)[:len(m.labels.Texts)]
		m.program.Classifier.Proba(&m.frame, m.proba)
	}
	return m.likeliest()
}

// likeliest is the prediction that follows from the probabilities.
func (m *Model) likeliest() Prediction {
	best := 0
	for class, p := range m.proba {
		if p > m.proba[best] { // of equals the class learned first
			best = class
		}
	}
	return Prediction{
		Label: Target{Type: m.spec.Label.Type, Text: m.labels.Texts[best]}, Known: true, Proba: m.proba,
		class: best,
	}
}

func (m *Model) transform(row Row) {
	m.load(row)
	m.program.Transform(&m.frame)
}

// Contribution is what one feature adds to each class.
type Contribution struct {
	Feature string
	Value   float64
	Adds    []float64 // by class, in the explanation's unit; of a number one
}

// Explanation takes a prediction apart: what each class has in all, from which
// its probability follows, is its prior and the sum of the contributions.
// Features that add nothing, such as the dummies of other values, are left out.
type Explanation struct {
	Prediction
	Unit     river.Unit // of the prior and of the contributions; empty if the last step explains nothing
	Prior    []float64  // by class
	Features []Contribution
}

// Explain predicts a row and says why, if the pipeline's last step can.
func (m *Model) Explain(row Row) Explanation {
	e := Explanation{Prediction: m.Predict(row)}
	e.Proba = append([]float64(nil), e.Proba...)
	explainer, ok := m.program.Last().(river.Explainer)
	if !ok {
		return e
	}
	e.Unit = explainer.Unit()
	explainer.Explain(&m.frame, func(feature string, value float64, byClass []float64) {
		if feature == "" {
			e.Prior = byClass
			return
		}
		e.Features = append(e.Features, Contribution{feature, value, byClass})
	})
	return e
}

// Repeat tells what was said of an event whose id is remembered: false if
// the id is not. conflict means that the remembered event had another payload.
func (m *Model) Repeat(messageID string, index int, e *Event) (a Answer, conflict, found bool) {
	key, named := m.hasher.key(messageID, index, e.ID)
	if !named {
		return Answer{}, false, false
	}
	first, found := m.ids.find(key)
	if !found {
		return Answer{}, false, false
	}
	return m.answer(first), first.payload != m.hasher.payload(m.spec, e), true
}

// Conflicts names each event of a message whose id is taken by one with another
// payload, which is remembered or comes earlier in the message.
func (m *Model) Conflicts(messageID string, events []Event, batch bool) []Problem {
	var out []Problem
	here := map[idKey]payload{}
	for i := range events {
		e := &events[i]
		key, named := m.hasher.key(messageID, i, e.ID)
		if !named {
			continue
		}
		says := m.hasher.payload(m.spec, e)
		taken, found := here[key]
		if first, known := m.ids.find(key); known {
			taken, found = first.payload, true
		}
		here[key] = says
		if found && taken != says {
			loc := []any{"id"}
			if e.ID == nil {
				loc = []any{"header", "Nats-Msg-Id"}
			}
			if batch {
				loc = append([]any{i}, loc...)
			}
			out = append(out, Problem{Loc: loc, Msg: "The id is taken by an event with another payload", Type: "id_taken"})
		}
	}
	return out
}

// Spec is the model's spec.
func (m *Model) Spec() *Spec { return m.spec }

// Contract is the hash of what decides the fold.
func (m *Model) Contract() [32]byte { return m.contract }

// Seq is the last message applied, 0 before any.
func (m *Model) Seq() uint64 { return m.seq }

// Incarnation is the log's random id, empty before its genesis.
func (m *Model) Incarnation() string { return m.incarnation }

// Tip is the hash of the last message applied.
func (m *Model) Tip() [32]byte { return m.tip }

// LogChain is the running hash over all messages applied.
func (m *Model) LogChain() [32]byte { return m.logChain }

// StateChain is the running hash over what the fold made of them.
func (m *Model) StateChain() [32]byte { return m.stateChain }

// Learned is how many events were learned.
func (m *Model) Learned() uint64 { return m.learned }

// Rejected is how many events were rejected.
func (m *Model) Rejected() uint64 { return m.rejected }

// Duplicates is how many events repeated an id and were not learned again.
func (m *Model) Duplicates() uint64 { return m.duplicates }

// Labels are the classes in the order they were first learned. The caller
// must not change them.
func (m *Model) Labels() []string { return m.labels.Texts }

// Metrics are the model's own scores. They stay the model's.
func (m *Model) Metrics() *Metrics { return &m.metrics }

// IsTip reports whether a message is the last one applied.
func (m *Model) IsTip(msg Message) bool { return msg.Hash() == m.tip }
