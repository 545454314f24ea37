package model

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// traceLine is a line of a trace of the real River; see testdata/README.md.
type traceLine struct {
	Seq        uint64             `json:"seq"`
	Case       string             `json:"case"`
	Spec       string             `json:"spec"`
	Reset      bool               `json:"reset"`
	Final      bool               `json:"final"`
	Attributes json.RawMessage    `json:"attributes"`
	Species    json.RawMessage    `json:"species"`
	Predict    *string            `json:"predict"`
	Proba      map[string]float64 `json:"proba"`
	Error      string             `json:"error"`
	raw        []byte
}

func readTrace(t testing.TB, name string) []traceLine {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []traceLine
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<22)
	for scanner.Scan() {
		line := traceLine{raw: []byte(scanner.Text())}
		if err := json.Unmarshal(line.raw, &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// learnEvent is the line as a learn event.
func (l *traceLine) learnEvent() []byte {
	return []byte(`{"attributes":` + string(l.Attributes) + `,"species":` + string(l.Species) + `}`)
}

// replayer feeds traces to a model and compares what it says.
type replayer struct {
	t         testing.TB
	build     func() *Model
	model     *Model
	decoder   *Decoder
	tolerance float64
	correct   int
}

func (r *replayer) line(l *traceLine) {
	r.t.Helper()
	if l.Reset || r.model == nil {
		r.model = r.build()
		r.decoder = NewDecoder(r.model.Spec())
	}
	if l.Final {
		differences, err := r.model.Differences(l.raw)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, d := range differences {
			r.t.Errorf("%s: %s", l.Case, d)
		}
		return
	}
	row, err := r.decoder.Attributes(l.Attributes)
	if err != nil {
		r.t.Fatalf("seq %d: %v", l.Seq, err)
	}
	p := r.model.Predict(row)
	r.compare(l, p)
	if string(l.Species) == "null" {
		return
	}
	if label := strings.Trim(string(l.Species), `"`); p.Known && p.Label.Text == label {
		r.correct++
	}
	result := r.model.Apply(Message{Seq: r.model.Seq() + 1, Subject: SubjectLearn, Data: l.learnEvent()})
	if o := result.Outcomes[0]; o.Verdict != Learned {
		r.t.Fatalf("seq %d: %s: %v", l.Seq, o.Verdict, o.Problems)
	}
}

func (r *replayer) compare(l *traceLine, p Prediction) {
	r.t.Helper()
	if p.Known != (l.Predict != nil) || p.Known && p.Label.Text != *l.Predict {
		r.t.Errorf("%s seq %d: predicted %q, River %v", l.Case, l.Seq, p.Label, l.Predict)
	}
	if len(p.Proba) != len(l.Proba) {
		r.t.Fatalf("%s seq %d: %d probabilities, River has %d", l.Case, l.Seq, len(p.Proba), len(l.Proba))
	}
	for class, label := range r.model.Labels() {
		if d := math.Abs(p.Proba[class] - l.Proba[label]); !(d <= r.tolerance) {
			r.t.Errorf("%s seq %d: P(%s) = %v, River %v", l.Case, l.Seq, label, p.Proba[class], l.Proba[label])
		}
	}
}

func newModel(t testing.TB, s *Spec) *Model {
	t.Helper()
	m, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPenguinsMatchRiver(t *testing.T) {
	for name, correct := range map[string]int{
		"penguins-in-order.jsonl":    -1,
		"penguins-shuffled.jsonl":    293,
		"penguins-x10-missing.jsonl": -1,
	} {
		t.Run(name, func(t *testing.T) {
			r := &replayer{t: t, build: func() *Model { return newModel(t, DefaultSpec()) }, tolerance: 1e-9}
			for _, l := range readTrace(t, name) {
				r.line(&l)
			}
			if correct >= 0 && r.correct != correct {
				t.Errorf("%d of 344 predicted rightly, want %d", r.correct, correct)
			}
			if got := r.model.Metrics().Correct(); got != uint64(r.correct) {
				t.Errorf("the model counts %d correct, the test %d", got, r.correct)
			}
		})
	}
}

// wide is the default spec with room for River's edge cases: its bounds are
// past what the compiler allows.
func wide() *Spec {
	s := *DefaultSpec()
	s.Inputs = append([]Field(nil), s.Inputs...)
	for i := range s.Inputs {
		f := &s.Inputs[i]
		f.Min, f.Max, f.MaxValues, f.MaxBytes = math.Inf(-1), math.Inf(1), 1000, 100_000
	}
	s.Label.MaxValues, s.Label.MaxBytes = 1000, 100_000
	return &s
}

// pastBounds are the cases that the default spec's bounds refuse.
var pastBounds = map[string]bool{
	"mode-26-values": true, "long-strings": true, "huge-1e300": true,
	"ints-as-numbers": true, "negative-at-predict": true, "all-negative-class": true,
}

func TestEdgeCasesMatchRiver(t *testing.T) {
	cases := map[string][]traceLine{}
	var order []string
	for _, l := range readTrace(t, "edge.jsonl") {
		if cases[l.Case] == nil {
			order = append(order, l.Case)
		}
		cases[l.Case] = append(cases[l.Case], l)
	}
	for _, name := range order {
		t.Run(name, func(t *testing.T) {
			dies := false
			for _, l := range cases[name] {
				dies = dies || l.Error != ""
			}
			if dies || strings.Contains(name, "negative") {
				refused(t, cases[name])
			}
			if dies {
				return
			}
			r := &replayer{t: t, tolerance: 1e-9, build: func() *Model {
				if !pastBounds[name] {
					return newModel(t, DefaultSpec())
				}
				m, err := build(wide(), true)
				if err != nil {
					t.Fatal(err)
				}
				return m
			}}
			for _, l := range cases[name] {
				if l.Seq == 231 {
					illConditioned(t, r, &l)
					continue
				}
				r.line(&l)
			}
		})
	}
}

// illConditioned is the row whose probabilities hang on the last bit of a
// logarithm: only that both classes are equal and the first wins is certain.
func illConditioned(t *testing.T, r *replayer, l *traceLine) {
	row, err := r.decoder.Attributes(l.Attributes)
	if err != nil {
		t.Fatal(err)
	}
	p := r.model.Predict(row)
	if p.Label.Text != *l.Predict || p.Proba[0] != p.Proba[1] {
		t.Errorf("seq 231: %s with %v", p.Label, p.Proba)
	}
}

// refused replays a case with values that the default spec's bounds refuse,
// some of which kill River's model for good: here they are refused, their
// place is named, and every other prediction answers.
func refused(t *testing.T, lines []traceLine) {
	m := newModel(t, DefaultSpec())
	d := NewDecoder(m.Spec())
	refused := 0
	check := func(l *traceLine, problems []Problem) {
		refused++
		var values map[string]any
		if err := json.Unmarshal(l.Attributes, &values); err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if v, ok := values[p.Loc[len(p.Loc)-1].(string)].(float64); !ok || v >= 0 && v <= 1000 {
				t.Errorf("seq %d: %v, but the value there is %v", l.Seq, p, v)
			}
		}
		if len(problems) == 0 {
			t.Errorf("seq %d: refused without a problem", l.Seq)
		}
	}
	for _, l := range lines {
		if l.Final {
			continue
		}
		row, err := d.Attributes(l.Attributes)
		if err == nil {
			if p := m.Predict(row); p.Known != (m.Learned() > 0) {
				t.Errorf("seq %d: prediction %+v after %d learned", l.Seq, p, m.Learned())
			}
		} else if string(l.Species) == "null" {
			check(&l, problems(err))
		}
		if string(l.Species) == "null" {
			continue
		}
		before := m.Learned()
		o := m.Apply(Message{Seq: m.Seq() + 1, Subject: SubjectLearn, Data: l.learnEvent()}).Outcomes[0]
		if (o.Verdict == Rejected) != (err != nil) || (m.Learned() == before) != (err != nil) {
			t.Errorf("seq %d: %s, and as a prediction %v", l.Seq, o.Verdict, err)
		}
		if o.Verdict == Rejected {
			check(&l, o.Problems)
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}
