package model

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// Counts is what the model has learned, by the names that River's attributes
// have (class_counts, feature_counts, ...), in a form that marshals to JSON:
// for people, and to compare with a trace's final line.
func (m *Model) Counts() map[string]any {
	out := map[string]any{"learned": m.learned}
	for _, step := range m.program.steps {
		step.counts(out)
	}
	m.program.classifier.counts(out, m.labels.texts)
	return out
}

// within returns the map under a key, made if it is not there yet.
func within(out map[string]any, key string) map[string]any {
	inner, ok := out[key].(map[string]any)
	if !ok {
		inner = map[string]any{}
		out[key] = inner
	}
	return inner
}

func (t *meanImputer) counts(out map[string]any) {
	within(out, "means")[t.name] = map[string]any{"n": t.mean.n, "mean": t.mean.mean}
}

func (t *modeImputer) counts(out map[string]any) {
	counts := map[string]any{}
	for id, n := range t.n {
		counts[t.vocab.texts[id]] = n
	}
	var mode any
	if t.mode != null {
		mode = t.vocab.texts[t.mode]
	}
	out[t.name+"_mode"] = map[string]any{"counts": counts, "mode": mode}
}

func (t *oneHotEncoder) counts(out map[string]any) {
	for i, col := range t.columns {
		keys := []string{}
		for _, k := range t.keys {
			if int(k.column) == i {
				keys = append(keys, k.text)
			}
		}
		within(out, "onehot")[col.name] = keys
	}
}

func (t *standardScaler) counts(out map[string]any) {
	within(out, "scaler")[t.name] = map[string]any{"n": t.n, "mean": t.mean, "var": t.variance}
}

func (m *multinomialNB) counts(out map[string]any, labels []string) {
	classCounts, totals, features := within(out, "class_counts"), within(out, "class_totals"), within(out, "feature_counts")
	out["n_terms"] = uint64(m.terms())
	for class := range m.classes {
		c := &m.classes[class]
		classCounts[labels[class]], totals[labels[class]] = c.count, c.total
		for i, n := range m.numbers {
			within(features, n.name)[labels[class]] = c.amounts[i]
		}
		for i, e := range m.encoders {
			for place, since := range e.since {
				if since > 0 && c.last >= since {
					within(features, e.feature(e.keys[place].text, e.keys[place].column))[labels[class]] = c.dummyCount(i, place)
				}
			}
		}
	}
}

func (m *gaussianNB) counts(out map[string]any, labels []string) {
	classCounts, gaussians := within(out, "class_counts"), within(out, "gaussians")
	for class := range m.classes {
		c := &m.classes[class]
		classCounts[labels[class]] = c.count
		for i, n := range m.numbers {
			g := &c.gaussians[i]
			within(gaussians, labels[class])[n.name] = map[string]any{"n": g.mean.n, "mean": g.mean.mean, "s": g.s}
		}
	}
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
