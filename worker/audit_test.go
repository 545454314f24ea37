package worker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// checkpoint asks the fleet to attest, and for a snapshot if it should.
func (f *testFleet) checkpoint(snapshot bool) uint64 {
	f.t.Helper()
	ack, err := f.js.Publish(f.t.Context(), "penguins.ctl.checkpoint", fmt.Appendf(nil, `{"snapshot":%t}`, snapshot))
	if err != nil {
		f.t.Fatal(err)
	}
	return ack.Sequence
}

// teach publishes n events.
func (f *testFleet) teach(n int) (last uint64) {
	for i := range n {
		last = f.publish([]string{gentoo, adelie}[i%2])
	}
	return last
}

// flipAt flips a bit once, at a sequence.
func flipAt(seq uint64) func(*model.Model) *model.Model {
	var done atomic.Bool
	return func(m *model.Model) *model.Model {
		if m.Seq() < seq || done.Swap(true) {
			return m
		}
		return flip(m)
	}
}

// flip flips the first bit behind the middle of the state that can be.
func flip(m *model.Model) *model.Model {
	for bit := 4000; ; bit++ {
		if flipped, ok := m.Flipped(bit); ok {
			return flipped
		}
	}
}

// TestAFlippedBitIsHealed: it is found at the next checkpoint, named, and
// mended by folding again; the others serve on.
func TestAFlippedBitIsHealed(t *testing.T) {
	for _, others := range []int{1, 2} {
		t.Run(fmt.Sprint(1+others), func(t *testing.T) {
			f := newFleet(t)
			for i := range others {
				f.start(fmt.Sprint("good", i), model.DefaultSpec())
			}
			f.startTampered("bad", model.DefaultSpec(), flipAt(8))
			advisories, err := f.nc.SubscribeSync("penguins.advisory.>")
			if err != nil {
				t.Fatal(err)
			}
			if err := f.nc.Flush(); err != nil {
				t.Fatal(err)
			}
			f.settled(1+others, func(s fleet.Status) bool { return s.State == "ready" })
			f.teach(10)
			at := f.checkpoint(false)
			all := f.settled(1+others, func(s fleet.Status) bool {
				return s.Seq == at && s.State == "ready" && (s.Replica != "bad" || s.Healings == 1)
			})
			for _, s := range all[1:] {
				if s.Digest != all[0].Digest || s.Healings != 0 && s.Replica != "bad" {
					t.Errorf("%+v", s)
				}
			}
			for {
				msg, err := advisories.NextMsg(patience)
				if err != nil {
					t.Fatal(err)
				}
				if msg.Subject == "penguins.advisory.healed" && strings.Contains(string(msg.Data), `"replica":"bad"`) {
					break
				}
			}
			// What is learned afterwards, all learn.
			at = f.teach(3)
			all = f.settled(1+others, func(s fleet.Status) bool { return s.Seq == at && s.State == "ready" })
			for _, s := range all[1:] {
				if s.Digest != all[0].Digest {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// TestAReplicaAloneProvesItsSnapshot: no one can contradict it, so a fold
// beside it does.
func TestAReplicaAloneProvesItsSnapshot(t *testing.T) {
	f := newFleet(t)
	f.startTampered("bad", model.DefaultSpec(), flipAt(8))
	f.settled(1, func(s fleet.Status) bool { return s.State == "ready" })
	f.teach(10)
	f.checkpoint(true)
	f.settled(1, func(s fleet.Status) bool { return s.State == "ready" && s.Healings == 1 })
	second := f.checkpoint(true)
	if all := f.snapshots(second); len(all) != 1 {
		t.Errorf("what was wrong was kept: %+v", all)
	}
	f.start("good", model.DefaultSpec())
	for _, s := range f.settled(2, func(s fleet.Status) bool { return s.State == "ready" && s.Seq == second }) {
		if s.Replica == "good" && s.Restored != second {
			t.Errorf("it was restored from %d", s.Restored)
		}
	}
	third := f.checkpoint(false)
	all := f.settled(2, at(third))
	if all[0].Digest != all[1].Digest {
		t.Errorf("%+v", all)
	}
}

// flipAlways flips a bit in every fold, always at the same place.
func flipAlways() func(*model.Model) *model.Model {
	return func(m *model.Model) *model.Model {
		if m.Seq() == 8 {
			return flip(m)
		}
		return m
	}
}

// flipLater flips a bit after each fold, once something new comes.
func flipLater() func(*model.Model) *model.Model {
	var furthest uint64
	var before uint64
	flipped := false
	return func(m *model.Model) *model.Model {
		if m.Seq() <= before {
			flipped = false
		}
		before = m.Seq()
		if m.Seq() <= furthest {
			return m
		}
		furthest = m.Seq()
		if flipped || m.Seq() < 5 {
			return m
		}
		flipped = true
		return flip(m)
	}
}

// TestAFailingMachineIsQuarantined: a replica whose bits flip again after each
// refold, or in each; also when it attests first, and when there are only two.
func TestAFailingMachineIsQuarantined(t *testing.T) {
	for _, others := range []int{1, 2} {
		for name, tamper := range map[string]func() func(*model.Model) *model.Model{"a-bad": flipLater, "b-bad": flipAlways, "z-bad": flipLater} {
			t.Run(fmt.Sprint(name, 1+others), func(t *testing.T) {
				f := newFleet(t)
				for i := range others {
					f.start(fmt.Sprint("good", i), model.DefaultSpec())
				}
				f.startTampered(name, model.DefaultSpec(), tamper())
				f.settled(1+others, func(s fleet.Status) bool { return s.State == "ready" })
				for healings := int64(1); ; healings++ {
					f.teach(10)
					f.checkpoint(false)
					over := false
					f.settled(1+others, func(s fleet.Status) bool {
						if s.Replica != name {
							return s.State == "ready"
						}
						over = s.State == "quarantined"
						return over || s.State == "ready" && s.Healings == healings
					})
					if over {
						break
					}
				}
				at := f.teach(1)
				for range 20 {
					got, err := f.ask("predict", row, "Lockstep-Min-Seq", fmt.Sprint(at), "Lockstep-Timeout", "10s")
					if err != nil || got["seq"] != float64(at) {
						t.Fatalf("the others do not serve: %v %v", got, err)
					}
				}
				for _, s := range f.settled(1+others, func(s fleet.Status) bool { return s.Seq == at }) {
					if s.Replica == name && (s.State != "quarantined" || !strings.Contains(s.Advisory, "quarantined")) ||
						s.Replica != name && s.Healings > 0 {
						t.Errorf("%+v", s)
					}
				}
			})
		}
	}
}

// snapshots waits until the fleet has pointed to a snapshot of a checkpoint,
// and returns all.
func (f *testFleet) snapshots(at uint64) []fleet.Snapshot {
	f.t.Helper()
	boards, err := fleet.BindBuckets(f.t.Context(), f.nc, "penguins")
	if err != nil {
		f.t.Fatal(err)
	}
	for {
		all, err := fleet.Snapshots(f.t.Context(), boards.Checkpoints)
		if err != nil {
			f.t.Fatal(err)
		}
		if n := len(all); n > 0 && all[n-1].Seq == at {
			return all
		}
		if err := f.t.Context().Err(); err != nil {
			f.t.Fatal(err)
		}
	}
}

// TestSnapshots: a cold start is the newest good snapshot and the tail; a bad
// one is set aside, and says why.
func TestSnapshots(t *testing.T) {
	f := newFleet(t, "a", "b")
	f.teach(5)
	first := f.checkpoint(true)
	f.snapshots(first)
	f.teach(5)
	second := f.checkpoint(true)
	all := f.snapshots(second)
	if len(all) != 2 || len(all[1].Attested) != 2 {
		t.Errorf("%+v", all)
	}
	last := f.teach(3)
	check := func(name string, restored ...uint64) {
		t.Helper()
		w := f.start(name, model.DefaultSpec())
		defer w.stop()
		statuses := f.settled(3, at(last))
		for _, s := range statuses {
			if s.Digest != statuses[0].Digest {
				t.Errorf("%s: %+v", name, s)
			}
			if s.Replica == name && !slices.Contains(restored, s.Restored) {
				t.Errorf("%s was restored from %d, want one of %d: %s", name, s.Restored, restored, s.Advisory)
			}
		}
	}
	check("whole", second)
	boards, err := fleet.BindBuckets(t.Context(), f.nc, "penguins")
	if err != nil {
		t.Fatal(err)
	}
	board, blobs := boards.Checkpoints, boards.Snapshots
	state, err := blobs.Get(t.Context(), all[1].Object)
	if err != nil {
		t.Fatal(err)
	}
	aside := func(reason string) {
		t.Helper()
		asides, err := fleet.RejectedSnapshots(t.Context(), board)
		if err != nil || len(asides) != 1 || !strings.Contains(asides[0].Reason, reason) {
			t.Errorf("%+v %v, want %s", asides, err, reason)
		}
		if err := board.Remove(t.Context(), "aside"); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string][]byte{
		"corrupt":   append(append([]byte(nil), state[:900]...), append([]byte{state[900] ^ 1}, state[901:]...)...),
		"truncated": state[:len(state)/2],
		"empty":     nil,
	} {
		if err := blobs.Put(t.Context(), all[1].Object, data); err != nil {
			t.Fatal(err)
		}
		check(name, first)
		aside("canonical encoding")
	}
	if err := blobs.Remove(t.Context(), all[1].Object); err != nil {
		t.Fatal(err)
	}
	check("missing", first)
	aside("missing")
	// The first one's bytes under the second one's name.
	other, err := blobs.Get(t.Context(), all[0].Object)
	if err != nil {
		t.Fatal(err)
	}
	if err := blobs.Put(t.Context(), all[1].Object, other); err != nil {
		t.Fatal(err)
	}
	check("foreign", first)
	aside("not the state that it is said to be")
	if err := fleet.RemoveSnapshot(t.Context(), board, blobs, all[1]); err != nil {
		t.Fatal(err)
	}
	// One from beyond the log's end.
	m, err := model.Restore(model.DefaultSpec(), state)
	if err != nil {
		t.Fatal(err)
	}
	for m.Seq() < 1000 {
		m.Apply(model.Message{Seq: m.Seq() + 1, Subject: model.SubjectLearn, Data: []byte(gentoo)})
	}
	future := fleet.Attest(m)
	future.Replica = "another"
	if stored, err := fleet.StoreSnapshot(t.Context(), board, blobs, model.DefaultSpec(), future, m.AppendState(nil), nil); err != nil ||
		!stored {
		t.Fatal(stored, err)
	}
	check("future", first, second) // the other replica was asked for the second, too, and may have come late
	aside("the log ends at")
}

// TestASnapshotCoversAHole: a new worker starts behind a cut from a snapshot,
// and refuses to where none reaches that far.
func TestASnapshotCoversAHole(t *testing.T) {
	f := newFleet(t, "a")
	f.teach(5)
	at := f.checkpoint(true)
	f.snapshots(at)
	last := f.teach(5)
	stream, err := f.js.Stream(t.Context(), "PENGUINS")
	if err != nil {
		t.Fatal(err)
	}
	purge := func(below uint64) {
		t.Helper()
		if _, err := f.nc.Request("$JS.API.STREAM.PURGE.PENGUINS", fmt.Appendf(nil, `{"seq":%d}`, below), patience); err != nil {
			t.Fatal(err)
		}
	}
	_ = stream
	purge(at)
	b := f.start("b", model.DefaultSpec())
	all := f.settled(2, func(s fleet.Status) bool { return s.Seq == last })
	if all[0].Digest != all[1].Digest {
		t.Errorf("%+v", all)
	}
	b.stop()
	purge(at + 1)
	r := f.launch("c", model.DefaultSpec(), nil, nil)
	var gap *bus.GapError
	if err := <-r.err; !errors.As(err, &gap) || !strings.Contains(err.Error(), "no snapshot covers it") {
		t.Errorf("it ended with %v", err)
	}
}

// TestASnapshotOfALostHistory: the log was taken back behind a snapshot, and
// went on otherwise.
func TestASnapshotOfALostHistory(t *testing.T) {
	f := newFleet(t, "a")
	f.teach(3)
	first := f.checkpoint(true)
	f.snapshots(first)
	// A stale copy of the snapshot's history: as if the log had been another.
	boards, err := fleet.BindBuckets(t.Context(), f.nc, "penguins")
	if err != nil {
		t.Fatal(err)
	}
	board, blobs := boards.Checkpoints, boards.Snapshots
	state, err := blobs.Get(t.Context(), f.snapshots(first)[0].Object)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Restore(model.DefaultSpec(), state)
	if err != nil {
		t.Fatal(err)
	}
	m.Apply(model.Message{Seq: first + 1, Subject: model.SubjectLearn, ID: "lost", Data: []byte(gentoo)})
	lost := fleet.Attest(m)
	lost.Replica = "lost"
	if stored, err := fleet.StoreSnapshot(t.Context(), board, blobs, model.DefaultSpec(), lost, m.AppendState(nil), nil); err != nil ||
		!stored {
		t.Fatal(stored, err)
	}
	last := f.teach(2)
	f.start("b", model.DefaultSpec())
	all := f.settled(2, at(last))
	for _, s := range all {
		if s.Digest != all[0].Digest ||
			s.Replica == "b" && (s.Restored != first || !strings.Contains(s.Advisory, "another history")) {
			t.Errorf("%+v", s)
		}
	}
}
