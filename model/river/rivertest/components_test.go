package rivertest

import (
	"bytes"
	"strconv"
	"testing"

	"lockstep/model"
	"lockstep/model/river"
)

// pipeline drives a spec's components without the fold, as plainly as can be.
type pipeline struct {
	t       testing.TB
	spec    *model.Spec
	vocabs  []river.Vocab
	labels  river.Vocab
	slots   []int // of the inputs
	program *river.Program
	frame   river.Frame
	decoder *model.Decoder
}

func newPipeline(t testing.TB, s *model.Spec) *pipeline {
	t.Helper()
	p := &pipeline{t: t, spec: s, labels: river.NewVocab(), decoder: model.NewDecoder(s)}
	for range s.Inputs {
		p.vocabs = append(p.vocabs, river.NewVocab())
	}
	var problems []string
	p.program, problems = river.Compile(s.Pipeline, limits(s), p.inputs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	p.frame = p.program.NewFrame()
	return p
}

func (p *pipeline) inputs(newSlot func(river.ColumnKind) int) []river.Column {
	var out []river.Column
	for i := range p.spec.Inputs {
		f := &p.spec.Inputs[i]
		col := river.Column{
			Name: f.Name, Nullable: f.Nullable, Min: f.Min, Max: f.Max, Vocab: &p.vocabs[i],
			MaxValues: f.MaxValues, MaxBytes: f.MaxBytes,
		}
		col.Kind = columnKind(f.Type)
		col.Slot = newSlot(col.Kind)
		p.slots = append(p.slots, col.Slot)
		out = append(out, col)
	}
	return out
}

func (p *pipeline) load(row model.Row, learning bool) {
	for i, v := range row {
		switch kind := p.spec.Inputs[i].Type; {
		case kind == model.Text:
			p.frame.Texts[p.slots[i]] = river.Text{V: v.Text, Null: v.Null}
			continue
		case kind != model.Category:
			p.frame.Numbers[p.slots[i]] = river.Number{V: v.Num, Null: v.Null}
			continue
		}
		x := river.Category{ID: river.Null}
		if !v.Null {
			if x = (river.Category{ID: p.vocabs[i].Find(v.Text), Text: v.Text}); learning && x.ID == river.Unknown {
				x.ID = p.vocabs[i].Add(string(v.Text))
			}
		}
		p.frame.Categories[p.slots[i]] = x
	}
}

// learn learns an event, if there is room for its values.
func (p *pipeline) learn(data []byte) {
	events, _, err := p.decoder.Learn(data)
	if err != nil || len(events[0].Problems) > 0 {
		p.t.Fatalf("%s: %v %v", data, err, events[0].Problems)
	}
	e := &events[0]
	for i, v := range e.Row {
		if f := &p.spec.Inputs[i]; f.Type == model.Category && !v.Null && len(p.vocabs[i].Texts) >= f.MaxValues &&
			p.vocabs[i].Find(v.Text) == river.Unknown {
			return
		}
	}
	switch p.spec.Label.Type {
	case model.Number:
		p.frame.Y = e.Label.Num
	case model.Boolean:
		p.frame.Target, p.frame.Y = p.class(strconv.FormatBool(e.Label.Num != 0)), e.Label.Num
	default:
		p.frame.Target = p.class(string(e.Label.Text))
	}
	if p.frame.Target < 0 {
		return
	}
	p.load(e.Row, true)
	p.program.Learn(&p.frame)
}

// class is a label's, a new one where it is new, or -1 where there is no room.
func (p *pipeline) class(label string) int {
	class := p.labels.Find([]byte(label))
	if class == river.Unknown {
		if len(p.labels.Texts) >= limits(p.spec).Classes {
			return -1
		}
		class = p.labels.Add(label)
	}
	return int(class)
}

func (p *pipeline) predict(attributes string) {
	row, err := p.decoder.Attributes([]byte(attributes))
	if err != nil {
		p.t.Fatal(err)
	}
	p.load(row, false)
	p.program.Transform(&p.frame)
	switch {
	case p.program.Regressor != nil:
		p.program.Regressor.Predict(&p.frame)
	case p.program.Binary != nil:
		p.program.Binary.ProbaTrue(&p.frame)
	case len(p.labels.Texts) > 0:
		p.program.Classifier.Proba(&p.frame, make([]float64, len(p.labels.Texts)))
	}
}

// components are the steps, and then the classifier.
func (p *pipeline) components() []river.Component {
	var out []river.Component
	for _, step := range p.program.Steps {
		out = append(out, step)
	}
	return append(out, p.program.Last())
}

// state is the encoding of one component.
func (p *pipeline) state(i int) []byte {
	s := river.NewWriter(nil)
	p.components()[i].Code(s)
	return s.Bytes()
}

// copy is a pipeline of the same state but for one component, whose encoding is
// given; nil if that is refused.
func (p *pipeline) copy(component int, state []byte) *pipeline {
	out := newPipeline(p.t, p.spec)
	for i := range p.vocabs {
		for _, text := range p.vocabs[i].Texts {
			out.vocabs[i].Add(text)
		}
	}
	for _, text := range p.labels.Texts {
		out.labels.Add(text)
	}
	for i, c := range out.components() {
		encoded := state
		if i != component {
			encoded = p.state(i)
		}
		s := river.NewReader(encoded)
		s.SetClasses(len(out.labels.Texts))
		c.Code(s)
		if s.Err() != nil || len(s.Bytes()) > 0 {
			return nil
		}
	}
	return out
}

// TestDamagedComponents: a component's encoding that is cut, longer or changed
// is refused, or is the encoding of a state that can go on.
func TestDamagedComponents(t *testing.T) {
	eachSpec(t, func(t *testing.T, _ string, s *model.Spec) {
		r, p := newRows(s, 6), newPipeline(t, s)
		for range 30 {
			p.learn(r.event(r.IntN(3)))
		}
		for i, c := range p.components() {
			good := p.state(i)
			damage := func(state []byte) *pipeline {
				out := p.copy(i, state)
				if out == nil {
					return nil
				}
				if got := out.state(i); !bytes.Equal(got, state) {
					t.Fatalf("%T: %x is read, and written as %x", c, state, got)
				}
				for range 3 {
					out.predict(r.attributes())
					out.learn(r.event(r.IntN(5)))
				}
				return out
			}
			if damage(good) == nil {
				t.Fatalf("%T: its own encoding is refused", c)
			}
			for n := range good {
				if damage(good[:n]) != nil {
					t.Errorf("%T: its encoding cut at %d of %d is taken", c, n, len(good))
				}
			}
			if damage(append(bytes.Clone(good), 0)) != nil {
				t.Errorf("%T: its encoding with one more byte is taken", c)
			}
			for range min(600, 600*len(good)) { // one without a state has no byte to change
				changed := bytes.Clone(good)
				changed[r.IntN(len(changed))] ^= byte(1 + r.IntN(255))
				damage(changed)
			}
		}
	})
}

// TestStatesAreBounded: however many values and classes strangers send, each
// component's state takes at most what it declared. The bound is not far off.
func TestStatesAreBounded(t *testing.T) {
	eachSpec(t, func(t *testing.T, _ string, s *model.Spec) {
		tight := *s
		tight.Label.MaxValues = 5
		tight.Inputs = append([]model.Field(nil), s.Inputs...)
		for i := range tight.Inputs {
			tight.Inputs[i].MaxValues, tight.Inputs[i].MaxBytes = 6, 9
		}
		r, p := newRows(&tight, 8), newPipeline(t, &tight)
		for i := range 3000 {
			event := bytes.ReplaceAll(r.event(i%7), []byte(`:"v`), []byte(`:"longer-`))
			if events, _, _ := p.decoder.Learn(event); len(events[0].Problems) == 0 {
				p.learn(event)
			}
		}
		if got := len(p.labels.Texts); s.Label.Type == model.Category && got != 5 {
			t.Fatalf("got %d classes, want 5", got)
		}
		for i, c := range p.components() {
			got, bound := len(p.state(i)), p.program.Bounds[i]
			if got > bound {
				t.Errorf("%T: its state has %d bytes, and its bound is %d", c, got, bound)
			}
			if got < bound/8 {
				t.Errorf("%T: its state has %d bytes, and its bound is %d, which bounds little", c, got, bound)
			}
		}
		if len(p.program.Bounds) != len(p.components()) {
			t.Errorf("got %d bounds, want one for each of %d components", len(p.program.Bounds), len(p.components()))
		}
	})
}

// limits are what a spec lets its components rely on, as the fold has them.
func limits(s *model.Spec) river.Limits {
	l := river.Limits{Classes: s.Label.MaxValues, TargetMin: s.Label.Min, TargetMax: s.Label.Max}
	switch s.Label.Type {
	case model.Number:
		l.Tasks = []river.Task{river.Regression}
	case model.Boolean:
		l.Tasks, l.Classes = []river.Task{river.BinaryClassification, river.Classification}, 2
		l.TargetMin, l.TargetMax = 0, 1
	default:
		l.Tasks = []river.Task{river.Classification}
	}
	return l
}

func columnKind(t model.FieldType) river.ColumnKind {
	switch t {
	case model.Category:
		return river.CategoryColumn
	case model.Text:
		return river.TextColumn
	case model.Timestamp:
		return river.TimestampColumn
	default:
		return river.NumberColumn
	}
}
