package model

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"testing"
)

// messages is a log to fold: a genesis, the shuffled penguins with ids and
// some without, batches, repeats and bad events.
func messages(t testing.TB) []Message {
	t.Helper()
	out := []Message{
		{
			Seq: 1, Subject: SubjectGenesis,
			Data: []byte(
				`{"incarnation":"i","contract":"0000000000000000000000000000000000000000000000000000000000000000","spec":""}`,
			),
		},
	}
	add := func(subject, id, data string) {
		out = append(out, Message{Seq: uint64(len(out) + 1), Subject: subject, ID: id, Data: []byte(data)})
	}
	for i, l := range readTrace(t, "penguins-shuffled.jsonl") {
		if l.Final {
			break
		}
		event := string(l.learnEvent())
		switch i % 7 {
		case 0:
			add(SubjectLearn, "", event)
		case 1:
			add(SubjectLearn, fmt.Sprint("id", i%50), event) // repeats, with another payload
		case 2:
			add(SubjectLearn, fmt.Sprint("batch", i), "["+event+","+event+`,{"species":"Adelie"}]`)
		case 3:
			add(SubjectLearn, "", `{"attributes":{"island":"Dream"}}`)
		case 4:
			add(SubjectCheckpoint, "", "")
		default:
			add(SubjectLearn, fmt.Sprint("id", i), event)
		}
	}
	return out
}

// TestDigestsAreTheSameEverywhere fixes the digests of the golden traces, and
// of a log with all verdicts: another CPU, compiler or release that makes
// another state shows here.
func TestDigestsAreTheSameEverywhere(t *testing.T) {
	want := map[string]string{
		"penguins-in-order.jsonl":    "7ddf27866d5dd1dacc7bdea7f087b562",
		"penguins-shuffled.jsonl":    "8c3852a5bb37344a22a7016fdb994a26",
		"penguins-x10-missing.jsonl": "5d32d93691124fc44e34d308cd2ba0b0",
		"messages":                   "f8b18476af01791cb1be13d38c5da7f5",
	}
	check := func(name string, m *Model) {
		digest := m.Digest()
		if got := hex.EncodeToString(digest[:16]); got != want[name] {
			t.Errorf("%s: the digest is %s, and should be %s everywhere", name, got, want[name])
		}
	}
	for _, name := range []string{"penguins-in-order.jsonl", "penguins-shuffled.jsonl", "penguins-x10-missing.jsonl"} {
		r := &replayer{t: t, build: func() *Model { return newModel(t, DefaultSpec()) }, tolerance: 1e-9}
		for _, l := range readTrace(t, name) {
			r.line(&l)
		}
		check(name, r.model)
	}
	m := newModel(t, DefaultSpec())
	for _, msg := range messages(t) {
		m.Apply(msg)
	}
	check("messages", m)
}

// TestSnapshotPlusTailIsTheFullReplay restores a state at every sequence and
// replays what follows.
func TestSnapshotPlusTailIsTheFullReplay(t *testing.T) {
	for _, name := range ShippedSpecs() {
		t.Run(name, func(t *testing.T) {
			s, _ := ShippedSpec(name)
			log := messages(t)[:120]
			full := newModel(t, s)
			var states [][]byte
			for _, msg := range log {
				full.Apply(msg)
				states = append(states, full.AppendState(nil))
			}
			for i := range log {
				m, err := Restore(s, states[i])
				if err != nil {
					t.Fatal(err)
				}
				if again := m.AppendState(nil); !bytes.Equal(again, states[i]) {
					t.Fatalf("sequence %d: restored, it encodes differently", i+1)
				}
				for _, msg := range log[i+1:] {
					m.Apply(msg)
				}
				if m.Digest() != full.Digest() || m.StateChain() != full.StateChain() {
					t.Fatalf("a snapshot at %d and its tail differ from the full replay", i+1)
				}
			}
		})
	}
}

// TestDigestSeesEveryChange compares the digest that is kept up to date with
// one that is computed again, at every sequence.
func TestDigestSeesEveryChange(t *testing.T) {
	m := newModel(t, DefaultSpec())
	for _, msg := range messages(t) {
		m.Apply(msg)
		if msg.Seq%3 == 0 {
			continue // changes pile up between two digests
		}
		anew, err := Restore(m.Spec(), m.AppendState(nil))
		if err != nil {
			t.Fatal(err)
		}
		if m.Digest() != anew.Digest() {
			t.Fatalf("sequence %d: the digest missed a change", msg.Seq)
		}
	}
}

// TestRestoreRefusesDamage changes each byte of a state, and cuts it at each.
func TestRestoreRefusesDamage(t *testing.T) {
	m := newModel(t, DefaultSpec())
	for _, msg := range messages(t)[:20] {
		m.Apply(msg)
	}
	state := m.AppendState(nil)
	for i := range state {
		damaged := bytes.Clone(state)
		damaged[i] ^= 1 << (i % 8)
		if _, err := Restore(m.Spec(), damaged); err == nil {
			t.Fatalf("byte %d changed, and nobody noticed", i)
		}
		if i%16 == 0 {
			if _, err := Restore(m.Spec(), state[:i]); err == nil {
				t.Fatalf("cut at %d, and nobody noticed", i)
			}
		}
	}
	if _, err := Restore(m.Spec(), append(state, 0)); err == nil {
		t.Fatal("a byte more, and nobody noticed")
	}
	gaussian, _ := ShippedSpec("penguins-gaussian")
	if _, err := Restore(gaussian, state); err == nil {
		t.Fatal("the state of another contract was taken")
	}
}

// TestPredictIsPure compares the whole state before and after predictions.
func TestPredictIsPure(t *testing.T) {
	for _, name := range ShippedSpecs() {
		s, _ := ShippedSpec(name)
		m, d := newModel(t, s), NewDecoder(s)
		for _, msg := range messages(t)[:60] {
			m.Apply(msg)
			before := m.AppendState(nil)
			for _, l := range readTrace(t, "edge.jsonl")[:80] {
				if row, err := d.Attributes(l.Attributes); err == nil {
					m.Predict(row)
					m.Explain(row)
				}
			}
			if !bytes.Equal(before, m.AppendState(nil)) {
				t.Fatalf("%s: a prediction after %d changed the state", name, msg.Seq)
			}
		}
	}
}

// TestExplanationAddsUp: prior and contributions give the probabilities.
func TestExplanationAddsUp(t *testing.T) {
	for _, name := range ShippedSpecs() {
		s, _ := ShippedSpec(name)
		m, d := newModel(t, s), NewDecoder(s)
		for _, l := range readTrace(t, "penguins-shuffled.jsonl") {
			if l.Final {
				break
			}
			row, err := d.Attributes(l.Attributes)
			if err != nil {
				t.Fatal(err)
			}
			e := m.Explain(row)
			sum := append([]float64(nil), e.Prior...)
			for _, f := range e.Features {
				for class, v := range f.Adds {
					sum[class] += v
				}
			}
			softmax(sum)
			for class := range sum {
				if d := sum[class] - e.Proba[class]; d > 1e-9 || d < -1e-9 {
					t.Fatalf("%s: the contributions give %v, the prediction %v", name, sum, e.Proba)
				}
			}
			m.Apply(Message{Seq: m.Seq() + 1, Subject: SubjectLearn, Data: l.learnEvent()})
		}
	}
}

// softmax is the probabilities that follow from an explanation's sums.
func softmax(sums []float64) {
	if len(sums) == 0 {
		return
	}
	most, total := slices.Max(sums), 0.0
	for _, v := range sums {
		total += math.Exp(v - most)
	}
	for i, v := range sums {
		sums[i] = math.Exp(v-most) / total
	}
}

// TestFoldDoesNotAllocate: nothing on the hot path allocates once warm.
func TestFoldDoesNotAllocate(t *testing.T) {
	m := newModel(t, DefaultSpec())
	d := NewDecoder(m.Spec())
	log := messages(t)
	for _, msg := range log {
		m.Apply(msg)
	}
	event := Message{Subject: SubjectLearn, Data: log[1].Data}
	if n := testing.AllocsPerRun(200, func() { event.Seq++; m.Apply(event) }); n != 0 {
		t.Errorf("%v allocations per event", n)
	}
	row := []byte(
		`{"island":"Torgersen","bill_length_mm":39.1,"bill_depth_mm":18.7,"flipper_length_mm":181,"body_mass_g":3750,"sex":"male"}`,
	)
	n := testing.AllocsPerRun(200, func() {
		r, err := d.Attributes(row)
		if err != nil {
			t.Fatal(err)
		}
		m.Predict(r)
	})
	if n != 0 {
		t.Errorf("%v allocations per prediction", n)
	}
}

func BenchmarkApply(b *testing.B) {
	m := newModel(b, DefaultSpec())
	log := messages(b)
	for _, msg := range log {
		m.Apply(msg)
	}
	event := Message{Subject: SubjectLearn, Data: log[1].Data}
	b.ReportAllocs()
	for b.Loop() {
		event.Seq++
		m.Apply(event)
	}
}

func BenchmarkPredict(b *testing.B) {
	m := newModel(b, DefaultSpec())
	d := NewDecoder(m.Spec())
	for _, msg := range messages(b) {
		m.Apply(msg)
	}
	row := []byte(
		`{"island":"Torgersen","bill_length_mm":39.1,"bill_depth_mm":18.7,"flipper_length_mm":181,"body_mass_g":3750,"sex":"male"}`,
	)
	b.ReportAllocs()
	for b.Loop() {
		r, _ := d.Attributes(row)
		m.Predict(r)
	}
}

// FuzzRestore feeds a state's bytes from outside: they restore to the state
// they encode, or to an error.
func FuzzRestore(f *testing.F) {
	spec := DefaultSpec()
	spec.DedupWindow = 16 // a full window is large, and slow to read
	m := newModel(f, spec)
	f.Add(m.AppendState(nil))
	for _, msg := range messages(f)[:12] {
		m.Apply(msg)
		f.Add(m.AppendState(nil))
	}
	f.Fuzz(func(t *testing.T, state []byte) {
		restored, err := Restore(spec, state)
		if err != nil {
			return
		}
		if !bytes.Equal(restored.AppendState(nil), state) {
			t.Error("it restores to another state")
		}
	})
}

// TestDamagedSegmentsDoNotPanic changes bytes and fixes the digest behind
// them, so that the damage gets past it.
func TestDamagedSegmentsDoNotPanic(t *testing.T) {
	spec := DefaultSpec()
	spec.DedupWindow = 16
	m := newModel(t, spec)
	log := messages(t)
	for _, msg := range log[:30] {
		m.Apply(msg)
	}
	state := m.AppendState(nil)
	row, err := NewDecoder(
		m.Spec(),
	).Attributes([]byte(`{"island":"Dream","bill_length_mm":1,"bill_depth_mm":1,"flipper_length_mm":1,"body_mass_g":1,"sex":null}`))
	if err != nil {
		t.Fatal(err)
	}
	var s sequence
	for range 20_000 {
		damaged := bytes.Clone(state[:len(state)-32])
		damaged[s.next()%uint64(len(damaged))] ^= byte(1 + s.next()%255)
		if restored, err := restore(m.Spec(), damaged); err == nil {
			restored.Predict(row)
			restored.Apply(log[1])
			restored.Counts()
		}
	}
}
