package worker

import (
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/model"
	"lockstep/worker/fleet"
)

// TestTooFarBehind: a replica that falls too far behind the furthest live one
// leaves the group, and comes back when it has caught up.
func TestTooFarBehind(t *testing.T) {
	f := newFleet(t)
	var slow atomic.Bool
	f.startTampered("a", model.DefaultSpec(), func(m *model.Model) *model.Model {
		if slow.Load() {
			time.Sleep(5 * time.Millisecond) // a machine that has no CPU left for it
		}
		return m
	})
	boards, err := fleet.BindBuckets(t.Context(), f.nc, "penguins")
	if err != nil {
		t.Fatal(err)
	}
	own := f.settled(1, func(s fleet.Status) bool { return s.State == "ready" })[0]
	far := fleet.Heartbeat{
		Replica: "far", State: "ready", Votes: true, Identity: own.Identity, LogChain: own.LogChain, StateChain: own.StateChain,
	}
	beat := func(seq uint64) {
		far.Seq = seq
		if err := fleet.PutHeartbeat(t.Context(), boards.Heartbeats, far); err != nil {
			t.Fatal(err)
		}
	}
	// One that is further than the log says nothing.
	for range 12 {
		f.settled(1, func(s fleet.Status) bool { beat(math.MaxUint64); return s.State == "ready" })
	}
	slow.Store(true)
	for range fleet.MaxBehind + 2000 {
		if err := f.nc.Publish("penguins.learn", []byte(gentoo)); err != nil {
			t.Fatal(err)
		}
	}
	end := f.publish(gentoo)
	f.settled(1, func(s fleet.Status) bool { beat(end); return s.State == "replaying" })
	slow.Store(false)
	f.settled(1, func(s fleet.Status) bool { beat(end); return s.State == "ready" && s.Seq >= end-fleet.MaxBehind/10 })
	// One of another log says nothing.
	slow.Store(true)
	far.Incarnation = "another"
	for range 12 {
		f.settled(1, func(s fleet.Status) bool { beat(end + 2*fleet.MaxBehind); return s.State == "ready" })
	}
}

// TestTheSameNameTwice is noticed, and said.
func TestTheSameNameTwice(t *testing.T) {
	f := newFleet(t, "a", "a")
	f.settled(2, func(s fleet.Status) bool { return strings.Contains(s.Advisory, "has the name a too") })
}

// TestALogRolledBackAndContinued: the server comes back with an older copy of
// its store, and is written to before a worker has asked.
func TestALogRolledBackAndContinued(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	f.teach(4)
	f.settled(3, at(5))
	port := f.server.Port()
	restart := func(prepare func()) {
		t.Helper()
		if err := f.server.Shutdown(); err != nil {
			t.Fatal(err)
		}
		prepare()
		f.startServer(port)
	}
	older := t.TempDir()
	restart(func() {
		if err := os.CopyFS(older, os.DirFS(f.store)); err != nil {
			t.Fatal(err)
		}
	})
	for range 3 {
		f.publish(adelie)
	}
	f.settled(3, at(8))
	restart(func() { f.store = older })
	last := f.teach(6)
	all := f.settled(3, func(s fleet.Status) bool { return s.Seq >= last && s.State == "ready" })
	for _, s := range all {
		if s.Learned != 10 || s.Seq == all[0].Seq && s.Digest != all[0].Digest ||
			!strings.Contains(s.Advisory, "rolled back") ||
			!strings.Contains(s.Advisory, "from sequence 6 on") {
			t.Errorf("%+v", s)
		}
	}
	// Nothing that was left behind takes a share of the requests.
	for i := range 12 {
		if _, err := f.ask("predict", `{"island":"Torgersen","bill_length_mm":39.1,"bill_depth_mm":18.7,"flipper_length_mm":181,"body_mass_g":3750,"sex":"male"}`); err != nil {
			t.Fatalf("prediction %d: %v", i, err)
		}
	}
	f.start("d", model.DefaultSpec())
	for _, s := range f.settled(4, func(s fleet.Status) bool { return s.Seq >= last }) {
		if s.Learned != 10 {
			t.Errorf("%+v", s)
		}
	}
}
