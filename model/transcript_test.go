package model

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the transcripts by what the fold says now")

// TestTranscripts replays testdata/transcripts. A line of input is
//
//	spec NAME           the spec to use: a shipped one, or a YAML file beside the transcript
//	SUBJECT [id=ID] DATA   a message
//	predict DATA        a prediction
//	explain DATA        a prediction, and what each feature added to it
//	state               what was learned, by River's names, and the metrics
//
// and below each message, indented, stands what the fold said of it.
// Run go test -run Transcripts -update to rewrite them, and read the diff.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcript(t, filepath.Dir(file), string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("the fold says something else:\n%s", firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			return fmt.Sprintf(
				"line %d\n  was: %s\n  is:  %s", i+1, w[i], strings.Join(g[min(i, len(g)):min(i+1, len(g))], ""),
			)
		}
	}
	return "it says more"
}

func transcript(t *testing.T, dir, text string) string {
	var out strings.Builder
	m := newModel(t, DefaultSpec())
	for _, line := range strings.SplitAfter(text, "\n") {
		if strings.HasPrefix(line, " ") {
			continue // what was said before
		}
		out.WriteString(line)
		command, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case command == "" || strings.HasPrefix(command, "#"):
		case command == "spec":
			m = newModel(t, transcriptSpec(t, dir, rest))
		case command == "predict", command == "explain":
			out.WriteString(say(m, command, rest))
		case command == "state":
			out.WriteString(state(t, m))
		default:
			out.WriteString(fold(m, command, rest))
		}
	}
	return out.String()
}

func transcriptSpec(t *testing.T, dir, name string) *Spec {
	if s, ok := ShippedSpec(name); ok {
		return s
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSpec(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func say(m *Model, command, data string) string {
	row, err := NewDecoder(m.Spec()).Attributes([]byte(data))
	if err != nil {
		return "  invalid: " + problemList(problems(err)) + "\n"
	}
	p := m.Predict(row)
	out := "  " + probabilityLine(m, p.Proba) + "\n"
	if command == "explain" {
		for _, f := range m.Explain(row).Features {
			out += fmt.Sprintf("    %s = %g adds %.6f\n", f.Feature, f.Value, f.Adds)
		}
	}
	return out
}

// state is what a model has learned, a name and its values to a line.
func state(t *testing.T, m *Model) string {
	var out strings.Builder
	counts := m.Counts()
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		value, err := json.Marshal(counts[name])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "  %s %s\n", name, value)
	}
	s := m.Metrics()
	n, accuracy, loss := s.Rolling()
	fmt.Fprintf(
		&out, "  accuracy %v, log-loss %v, macro F1 %v, of the last %d %v and %v\n", s.Accuracy(), s.LogLoss(),
		s.MacroF1(), n, accuracy, loss,
	)
	return out.String()
}

func probabilityLine(m *Model, proba []float64) string {
	if len(proba) == 0 {
		return "nothing"
	}
	var out []string
	for class, p := range proba {
		out = append(out, fmt.Sprintf("%s %.6f", m.Labels()[class], p))
	}
	return strings.Join(out, ", ")
}

func fold(m *Model, subject, rest string) string {
	msg := Message{Seq: m.Seq() + 1, Subject: subject, Data: []byte(rest)}
	if id, data, ok := strings.Cut(rest, " "); ok && strings.HasPrefix(id, "id=") {
		msg.ID, msg.Data = strings.TrimPrefix(id, "id="), []byte(data)
	}
	result := m.Apply(msg)
	var out strings.Builder
	if len(result.Outcomes) == 0 {
		fmt.Fprintf(&out, "  %d: applied\n", result.Seq)
	}
	for i, o := range result.Outcomes {
		fmt.Fprintf(&out, "  %d", result.Seq)
		if result.Batch {
			fmt.Fprintf(&out, ".%d", i)
		}
		fmt.Fprintf(&out, ": %s", o.Verdict)
		if a := o.Answer; o.Verdict != Rejected {
			fmt.Fprintf(&out, " %s at %d.%d as number %d", a.Label, a.Seq, a.Index, a.Learned)
			if a.Known {
				fmt.Fprintf(&out, ", predicted %s", a.Predicted)
			}
		}
		if o.Conflict {
			out.WriteString(", with another payload")
		}
		out.WriteString(problemList(o.Problems) + "\n")
	}
	return out.String()
}

func problemList(problems []Problem) string {
	var out strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&out, "\n    %s (%s)", p, p.Type)
	}
	return out.String()
}
