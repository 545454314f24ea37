package rivertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lockstep/model"
)

// traceLine is a line of a trace; see README.md.
type traceLine struct {
	Seq        uint64             `json:"seq"`
	Case       string             `json:"case"`
	Spec       string             `json:"spec"` // of a case's first line: its name
	Final      bool               `json:"final"`
	Attributes json.RawMessage    `json:"attributes"`
	Predict    any                `json:"predict"`
	Proba      map[string]float64 `json:"proba"`
	State      map[string]state   `json:"state"` // of a final line, by River's class

	raw []byte
}

// state is what is learned, by River's names.
type state = map[string]any

// readTrace reads a trace. A case that names no spec has that of the file's name.
func readTrace(t testing.TB, file string) []traceLine {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var lines []traceLine
	for raw := range bytes.Lines(data) {
		line := traceLine{raw: raw}
		if err := json.Unmarshal(raw, &line); err != nil {
			t.Fatalf("%s: line %d: %v", file, len(lines)+1, err)
		}
		lines = append(lines, line)
	}
	if lines[0].Spec == "" {
		lines[0].Spec = strings.TrimSuffix(filepath.Base(file), ".jsonl")
	}
	return lines
}

func traces(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("got no traces: %v", err)
	}
	return files
}

// tracedSpecs are the names of the specs that River was asked about.
func tracedSpecs(t testing.TB) map[string]bool {
	out := map[string]bool{}
	for _, file := range traces(t) {
		for _, line := range readTrace(t, file) {
			out[line.Spec] = true
		}
	}
	return out
}

// TestTraces: River says the same to every event, before it is learned, and has
// learned the same in the end.
func TestTraces(t *testing.T) {
	all := specs(t)
	for _, file := range traces(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			var c *comparison
			for _, line := range readTrace(t, file) {
				if line.Spec != "" {
					s, ok := all[line.Spec]
					if !ok {
						t.Fatalf("there is no spec %s", line.Spec)
					}
					c = newComparison(t, line.Spec+" "+line.Case, s)
				}
				if line.Final {
					c.final(&line)
				} else {
					c.event(&line)
				}
			}
		})
	}
}

// comparison feeds events to a model and compares it with River.
type comparison struct {
	t       testing.TB
	name    string
	model   *model.Model
	decoder *model.Decoder
}

func newComparison(t testing.TB, name string, s *model.Spec) *comparison {
	m, err := model.New(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return &comparison{t, name, m, model.NewDecoder(s)}
}

// event compares a prediction, and learns the event if it has a label.
func (c *comparison) event(line *traceLine) {
	row, err := c.decoder.Attributes(line.Attributes)
	if err != nil {
		c.t.Fatalf("%s: seq %d: %v", c.name, line.Seq, err)
	}
	c.predicted(fmt.Sprint("seq ", line.Seq), c.model.Predict(row), line.Predict, line.Proba)
	label := c.model.Spec().Label.Name
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line.raw, &fields); err != nil {
		c.t.Fatal(err)
	}
	if string(fields[label]) == "null" {
		return
	}
	given := fields[label]
	if c.model.Spec().Label.Type == model.Boolean {
		given = bytes.Trim(given, `"`)
	}
	event := fmt.Appendf(nil, `{"attributes":%s,%q:%s}`, line.Attributes, label, given)
	result := c.model.Apply(model.Message{Seq: c.model.Seq() + 1, Subject: model.SubjectLearn, Data: event})
	if o := result.Outcomes[0]; o.Verdict != model.Learned {
		c.t.Fatalf("%s: seq %d: %s: %v", c.name, line.Seq, o.Verdict, o.Problems)
	}
}

// predicted compares a prediction: probabilities to 1e-9, and the label where
// they tell it.
func (c *comparison) predicted(what string, got model.Prediction, label any, proba map[string]float64) {
	if len(got.Proba) != len(proba) || got.Known != (label != nil) {
		c.t.Fatalf("%s: %s: got %d probabilities, River has %d", c.name, what, len(got.Proba), len(proba))
	}
	for class, name := range c.model.Labels() {
		if p := got.Proba[class]; !(math.Abs(p-proba[name]) <= 1e-9) {
			c.t.Errorf("%s: %s: got P(%s) = %v, River has %v", c.name, what, name, p, proba[name])
		}
	}
	switch label := label.(type) {
	case nil:
	case float64:
		if d := math.Abs(got.Label.Num - label); !(d <= 1e-9*max(1, math.Abs(label))) {
			c.t.Errorf("%s: %s: got %v, River has %v", c.name, what, got.Label.Num, label)
		}
	default:
		if got.Label.String() != fmt.Sprint(label) {
			c.t.Errorf("%s: %s: got %s, River has %v", c.name, what, got.Label, label)
		}
	}
}

// final compares what was learned: numbers exactly, but those under a key that
// ends in _near, or in a state, to 1e-9.
func (c *comparison) final(line *traceLine) {
	differences, err := c.model.Differences(line.raw)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, d := range differences {
		c.t.Errorf("%s: %s", c.name, d)
	}
	got := plain(c.t, c.model.Counts())
	var fields state
	if err := json.Unmarshal(line.raw, &fields); err != nil {
		c.t.Fatal(err)
	}
	for key, want := range fields {
		if name, ok := strings.CutSuffix(key, "_near"); ok {
			c.near(name, got[name], want)
		}
	}
	for _, class := range line.State {
		for key, want := range class {
			if got, ok := got[key]; ok {
				c.near(key, got, want)
			}
		}
	}
}

// near compares two JSON values, numbers to 1e-9, relative for what is above 1;
// integers are equal.
func (c *comparison) near(what string, got, want any) {
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
			c.t.Errorf("%s: %s: got the keys %q, River has %q", c.name, what, g, w)
			return
		}
		for key := range want {
			c.near(what+"."+key, got[key], want[key])
		}
	case float64:
		got, ok := got.(float64)
		close := math.Abs(got-want) <= 1e-9*max(1, math.Abs(want))
		if !ok || !close || want == math.Trunc(want) && math.Abs(got-want) > 1e-12*math.Abs(want) {
			c.t.Errorf("%s: %s: got %v, River has %v", c.name, what, got, want)
		}
	default:
		if fmt.Sprint(got) != fmt.Sprint(want) {
			c.t.Errorf("%s: %s: got %v, River has %v", c.name, what, got, want)
		}
	}
}

// plain is a value as JSON has it.
func plain(t testing.TB, v any) (out state) {
	t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
