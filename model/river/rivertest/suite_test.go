package rivertest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"lockstep/model"
	"lockstep/model/river"
)

func newModel(t testing.TB, s *model.Spec) *model.Model {
	t.Helper()
	m, err := model.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func decode(t testing.TB, s *model.Spec, attributes string) model.Row {
	t.Helper()
	row, err := model.NewDecoder(s).Attributes([]byte(attributes))
	if err != nil {
		t.Fatalf("%s: %v", attributes, err)
	}
	return row
}

// small is a spec with a small ring of ids, so that a state is short.
func small(s *model.Spec) *model.Spec {
	out := *s
	out.DedupWindow = 4
	return &out
}

// TestSnapshotPlusTail: at every sequence the state is read back, and what
// follows makes the same of it.
func TestSnapshotPlusTail(t *testing.T) {
	eachSpec(t, func(t *testing.T, _ string, s *model.Spec) {
		s = small(s)
		r, full := newRows(s, 1), newModel(t, s)
		var log []model.Message
		var states [][]byte
		for seq := uint64(1); seq <= 60; seq++ {
			states = append(states, full.AppendState(nil))
			log = append(log, r.message(seq, r.IntN(1+int(seq)/10)))
			full.Apply(log[seq-1])
		}
		states = append(states, full.AppendState(nil))
		for from := range states {
			m, err := model.Restore(s, states[from])
			if err != nil {
				t.Fatalf("the state after %d: %v", from, err)
			}
			for i := from; i < len(log); i++ {
				if got := m.AppendState(nil); !bytes.Equal(got, states[i]) {
					t.Fatalf("restored after %d: the state after %d is another", from, i)
				}
				m.Apply(log[i])
				row := decode(t, s, r.attributes())
				if got, want := m.Predict(row), full.Predict(row); i == len(log)-1 && !slices.Equal(got.Proba, want.Proba) {
					t.Fatalf("restored after %d: got %v, want %v", from, got.Proba, want.Proba)
				}
			}
		}
	})
}

// TestPredictingIsPure: neither a prediction nor an explanation changes the state
// or what is learned afterwards.
func TestPredictingIsPure(t *testing.T) {
	eachSpec(t, func(t *testing.T, _ string, s *model.Spec) {
		s = small(s)
		r, m, quiet := newRows(s, 2), newModel(t, s), newModel(t, s)
		for seq := uint64(1); seq <= 80; seq++ {
			before := m.AppendState(nil)
			for range 5 {
				row := decode(t, s, r.attributes())
				first := slices.Clone(m.Predict(row).Proba)
				m.Explain(decode(t, s, r.attributes()))
				if again := m.Predict(row).Proba; !slices.Equal(again, first) {
					t.Fatalf("after %d: got %v, and before %v", seq-1, again, first)
				}
			}
			if !bytes.Equal(m.AppendState(nil), before) {
				t.Fatalf("a prediction after %d changed the state", seq-1)
			}
			msg := r.message(seq, r.IntN(4))
			m.Apply(msg)
			quiet.Apply(msg)
		}
		if m.Digest() != quiet.Digest() {
			t.Error("the models of the same events differ, for one predicted more")
		}
	})
}

// TestNothingIsAllocated once warm, neither by learning nor by a prediction.
func TestNothingIsAllocated(t *testing.T) {
	for name, s := range specs(t) { // one at a time: allocations are counted of all goroutines
		r, m := newRows(s, 3), newModel(t, s)
		for seq := uint64(1); seq <= 200; seq++ {
			m.Apply(r.message(seq, r.IntN(4)))
		}
		msg := r.message(200, 1)
		m.Apply(msg)
		if n := testing.AllocsPerRun(100, func() { msg.Seq++; m.Apply(msg) }); n != 0 {
			t.Errorf("%s: got %v allocations per event, want 0", name, n)
		}
		d, attributes := model.NewDecoder(s), []byte(r.attributes())
		row, err := d.Attributes(attributes)
		if err != nil {
			t.Fatal(err)
		}
		m.Predict(row)
		if n := testing.AllocsPerRun(100, func() { m.Predict(row) }); n != 0 {
			t.Errorf("%s: got %v allocations per prediction, want 0", name, n)
		}
	}
}

// TestNumbersStayFinite: with whatever the bounds allow, the probabilities are
// numbers from 0 to 1 and what was learned can be written as JSON.
func TestNumbersStayFinite(t *testing.T) {
	eachSpec(t, func(t *testing.T, _ string, s *model.Spec) {
		for seed := range uint64(8) {
			r, m := newRows(s, seed), newModel(t, s)
			r.number = r.extreme
			for seq := uint64(1); seq <= 300; seq++ {
				for range 2 {
					finite(t, m, r.attributes())
				}
				m.Apply(r.message(seq, r.IntN(2+int(seq)/60)))
			}
			if _, err := json.Marshal(m.Counts()); err != nil {
				t.Errorf("seed %d: what was learned: %v", seed, err)
			}
		}
	})
}

// finite checks one prediction.
func finite(t *testing.T, m *model.Model, attributes string) {
	t.Helper()
	p := m.Predict(decode(t, m.Spec(), attributes))
	if m.Spec().Label.Type == model.Number {
		if v := p.Label.Num; math.IsNaN(v) || math.IsInf(v, 0) || !p.Known {
			t.Fatalf("%s: got %v, want a number", attributes, v)
		}
	} else if len(p.Proba) != len(m.Labels()) || p.Known != (len(p.Proba) > 0) {
		t.Fatalf("%s: got %d probabilities, want %d", attributes, len(p.Proba), len(m.Labels()))
	}
	for _, v := range p.Proba { // their sum is off where likelihoods are huge: River's is
		if !(v >= 0 && v <= 1+1e-9) {
			t.Fatalf("%s: got %v, want probabilities", attributes, p.Proba)
		}
	}
	if best := 0.0; len(p.Proba) > 0 {
		for _, v := range p.Proba {
			best = max(best, v)
		}
		if !(best >= 0.9/float64(len(p.Proba))) {
			t.Fatalf("%s: got %v, and none is probable", attributes, p.Proba)
		}
	}
	for _, f := range m.Explain(decode(t, m.Spec(), attributes)).Features {
		for _, v := range f.Adds {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("%s: %s adds %v", attributes, f.Feature, f.Adds)
			}
		}
	}
}

// TestClassesInAnyOrder: classes come one by one, in turns, all at once, and an
// early one comes back after the others.
func TestClassesInAnyOrder(t *testing.T) {
	orders := []string{"aaab", "abab", "abcdefgh", "aabbccaabbcc", "abca", "abbbbbba", "abcdefghgfedcba", "ba", "aaaaaaaa"}
	eachSpec(t, func(t *testing.T, _ string, s *model.Spec) {
		for seed, order := range orders {
			r, m := newRows(s, uint64(seed)), newModel(t, s)
			known := map[rune]bool{}
			for i, class := range order {
				finite(t, m, r.attributes())
				if o := m.Apply(r.message(uint64(i+1), int(class))).Outcomes[0]; o.Verdict != model.Learned {
					t.Fatalf("%s: %v", order, o.Problems)
				}
				known[class] = true
				finite(t, m, r.attributes())
				if s.Label.Type == model.Category && len(m.Labels()) != len(known) {
					t.Fatalf("%s: got %d classes after %d, want %d", order, len(m.Labels()), i+1, len(known))
				}
			}
		}
	})
}

// TestExplanationsAddUp: the prior and what each feature adds give, in the
// declared unit, the probabilities.
func TestExplanationsAddUp(t *testing.T) {
	explained := map[string]bool{}
	for name, s := range specs(t) {
		r, m := newRows(s, 4), newModel(t, s)
		for seq := uint64(1); seq <= 120; seq++ {
			m.Apply(r.message(seq, r.IntN(4)))
			attributes := r.attributes()
			e := m.Explain(decode(t, s, attributes))
			if e.Unit == "" {
				break // it explains nothing
			}
			explained[name] = true
			sums := make([]float64, max(len(m.Labels()), 1))
			copy(sums, e.Prior)
			seen := map[string]bool{}
			for _, f := range e.Features {
				if seen[f.Feature] {
					t.Fatalf("%s: %s: two features are called %s", name, attributes, f.Feature)
				}
				seen[f.Feature] = true
				for class, v := range f.Adds {
					sums[class] += v
				}
			}
			switch e.Unit {
			case river.LogLikelihood, river.Logit:
				softmax(sums)
			case river.LabelUnit:
				if d := math.Abs(sums[0] - e.Label.Num); d > 1e-9*max(1, math.Abs(e.Label.Num)) {
					t.Fatalf("%s: %s: the contributions give %v, the prediction is %v", name, attributes, sums[0], e.Label.Num)
				}
				continue
			default:
				t.Fatalf("%s: the unit %q is not known here", name, e.Unit)
			}
			for class, p := range sums {
				if math.Abs(p-e.Proba[class]) > 1e-9 {
					t.Fatalf("%s: %s: the contributions give %v, the prediction %v", name, attributes, sums, e.Proba)
				}
			}
		}
	}
	if len(explained) == 0 {
		t.Error("nothing was explained")
	}
}

func softmax(sums []float64) {
	most, total := slices.Max(sums), 0.0
	for _, v := range sums {
		total += math.Exp(v - most)
	}
	for i, v := range sums {
		sums[i] = math.Exp(v-most) / total
	}
}

// TestDamagedStates: with one bit of a state flipped there is an error, or a
// state that the model can go on with; a panic is neither.
func TestDamagedStates(t *testing.T) {
	eachSpec(t, func(t *testing.T, _ string, s *model.Spec) {
		s = small(s)
		r, m := newRows(s, 5), newModel(t, s)
		for seq := uint64(1); seq <= 40; seq++ {
			m.Apply(r.message(seq, r.IntN(3)))
		}
		bits, refused := 8*len(m.AppendState(nil)), 0
		for bit := range min(bits, 2_000) {
			if bits > 2_000 {
				bit = r.IntN(bits)
			}
			damaged, ok := m.Flipped(bit)
			if !ok {
				refused++
				continue
			}
			damaged.Predict(decode(t, s, r.attributes()))
			damaged.Explain(decode(t, s, r.attributes()))
			damaged.Counts()
			damaged.Apply(r.message(41, r.IntN(4)))
			damaged.AppendState(nil)
		}
		if refused == 0 {
			t.Error("no damage was noticed")
		}
	})
}

// TestDigests: the digest of a fixed log is the same on every CPU, and in every
// version. A digest is added by -update, and never replaced by it.
func TestDigests(t *testing.T) {
	const file = "testdata/digests.txt"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, digest, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[name] = digest
	}
	all := specs(t)
	for name, s := range all {
		r, m := newRows(s, 7), newModel(t, s)
		for seq := uint64(1); seq <= 2000; seq++ {
			m.Apply(r.message(seq, r.IntN(4)))
		}
		if m.Learned() < 1000 {
			t.Errorf("%s: only %d of 2000 events were learned", name, m.Learned())
		}
		digest, chain := m.Digest(), m.StateChain()
		got := hex.EncodeToString(digest[:8]) + " " + hex.EncodeToString(chain[:8])
		if _, ok := want[name]; !ok && *update {
			want[name] = got
		}
		if got != want[name] {
			t.Errorf("%s: got the digest and state chain %s, want %s", name, got, want[name])
		}
	}
	for name := range want {
		if _, ok := all[name]; !ok {
			t.Errorf("%s has the digest of %s, and there is no such spec", file, name)
		}
	}
	if *update {
		var out bytes.Buffer
		for _, name := range slices.Sorted(maps.Keys(want)) {
			fmt.Fprintln(&out, name, want[name])
		}
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
