package model

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// The traces in testdata/river are of specs other than the default one.

func riverSpec(t *testing.T, name string) *Spec {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "river", name))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSpec(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGaussianPenguinsMatchRiver(t *testing.T) {
	shipped, _ := ShippedSpec("penguins-gaussian")
	for name, s := range map[string]*Spec{
		"penguins-gaussian-shuffled.jsonl": shipped,
		"gaussian-raw-shuffled.jsonl":      riverSpec(t, "gaussian-raw.yaml"),
	} {
		t.Run(name, func(t *testing.T) {
			r := &replayer{t: t, build: func() *Model { return newModel(t, s) }, tolerance: 1e-9}
			for _, l := range readTrace(t, filepath.Join("river", name)) {
				r.line(&l)
				if l.Final {
					gaussiansNear(t, r.model, &l)
				}
			}
			if r.correct != 323 {
				t.Errorf("%d of 344 predicted rightly, want 323", r.correct)
			}
		})
	}
}

func TestOtherSpecsMatchRiver(t *testing.T) {
	var r *replayer
	for _, l := range readTrace(t, "river/river-edge.jsonl") {
		if l.Reset {
			s := riverSpec(t, l.Spec)
			r = &replayer{t: t, build: func() *Model { return newModel(t, s) }, tolerance: 1e-9}
		}
		r.line(&l)
		if l.Final {
			gaussiansNear(t, r.model, &l)
		}
	}
}

// gaussiansNear compares distributions learned behind a scaler: River's
// square root there is the C library's pow, which is not always rounded
// correctly, so the last bits differ.
func gaussiansNear(t *testing.T, m *Model, final *traceLine) {
	t.Helper()
	type gaussian struct{ N, Mean, S float64 }
	var want struct {
		Near map[string]map[string]gaussian `json:"gaussians_near"`
	}
	if err := json.Unmarshal(final.raw, &want); err != nil {
		t.Fatal(err)
	}
	if want.Near == nil {
		return
	}
	var got struct {
		Gaussians map[string]map[string]gaussian `json:"gaussians"`
	}
	counts, err := json.Marshal(m.Counts())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(counts, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Gaussians) != len(want.Near) {
		t.Errorf("%s: %d classes, River has %d", final.Case, len(got.Gaussians), len(want.Near))
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Abs(b)) }
	for class, features := range want.Near {
		for name, w := range features {
			if g := got.Gaussians[class][name]; g.N != w.N || !near(g.Mean, w.Mean) || !near(g.S, w.S) {
				t.Errorf("%s: %s of %s is %+v, River %+v", final.Case, name, class, g, w)
			}
		}
	}
}
