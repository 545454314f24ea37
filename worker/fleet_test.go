package worker

import (
	"os"
	"strings"
	"testing"

	"lockstep/model"
	"lockstep/worker/fleet"
)

// TestTooFarBehind: a replica that falls too far behind the furthest live one
// leaves the group, and comes back when it has caught up, or that one is gone.
func TestTooFarBehind(t *testing.T) {
	f := newFleet(t, "a")
	boards, err := fleet.BindBuckets(t.Context(), f.nc, "penguins")
	if err != nil {
		t.Fatal(err)
	}
	own := f.settled(1, func(s fleet.Status) bool { return s.State == "ready" })[0]
	far := fleet.Heartbeat{Replica: "far", Seq: own.Seq + fleet.MaxBehind + 1, Votes: true, Identity: own.Identity}
	beat := func() {
		if err := fleet.PutHeartbeat(t.Context(), boards.Heartbeats, far); err != nil {
			t.Fatal(err)
		}
	}
	beat()
	f.settled(1, func(s fleet.Status) bool { beat(); return s.State == "replaying" })
	if err := fleet.RemoveHeartbeat(t.Context(), boards.Heartbeats, "far"); err != nil {
		t.Fatal(err)
	}
	f.settled(1, func(s fleet.Status) bool { return s.State == "ready" })
	// One of another log says nothing.
	far.Incarnation = "another"
	beat()
	for range 12 {
		f.settled(1, func(s fleet.Status) bool { beat(); return s.State == "ready" })
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
		if s.Learned != 10 || s.Seq == all[0].Seq && s.Digest != all[0].Digest || !strings.Contains(s.Advisory, "rolled back") || !strings.Contains(s.Advisory, "from sequence 6 on") {
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
