package model

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"lockstep/model/river"
)

// Counts is what the model has learned, by the names that River's attributes
// have (class_counts, feature_counts, …), in a form that marshals to JSON: for
// people, and to compare with a trace's final line.
func (m *Model) Counts() map[string]any {
	out := map[string]any{"learned": m.learned}
	r := river.NewReport(out, m.labels.Texts)
	for _, step := range m.program.Steps {
		step.Report(r)
	}
	m.program.Last().Report(r)
	return out
}

// Differences compares Counts with those of a trace's final line, key by
// key, and describes each that is not exactly equal. Keys of the line that
// the model does not count are passed over.
func (m *Model) Differences(final []byte) ([]string, error) {
	var want, got map[string]any
	if err := json.Unmarshal(final, &want); err != nil {
		return nil, fmt.Errorf("final line: %w", err)
	}
	own, err := json.Marshal(m.Counts())
	if err != nil {
		return nil, fmt.Errorf("counts: %w", err) // a count that is not finite
	}
	if err := json.Unmarshal(own, &got); err != nil {
		return nil, err
	}
	var out []string
	for key := range got { // order: sorted below
		if w, ok := want[key]; ok && !reflect.DeepEqual(got[key], w) {
			out = append(out, fmt.Sprintf("%s is %v, the trace has %v", key, got[key], w))
		}
	}
	slices.Sort(out)
	return out, nil
}
