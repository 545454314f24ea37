package replica

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"

	"lockstep/model"
	"lockstep/worker/fleet"
)

// stored writes a snapshot of a worker's present state.
func (l *lone) stored(t *testing.T, change func(*fleet.Attestation)) bool {
	t.Helper()
	a := fleet.Attest(l.core.model)
	a.Replica = "a"
	change(&a)
	created, err := fleet.StoreSnapshot(t.Context(), l.board, l.blobs, l.cfg.Spec, a, l.core.model.AppendState(nil), nil)
	if err != nil {
		t.Logf("not stored: %v", err)
	}
	return created
}

func asIs(*fleet.Attestation) {}

// TestASnapshotIsReadBackFirst: what was spoilt on its way is not pointed to,
// and does not stay there.
func TestASnapshotIsReadBackFirst(t *testing.T) {
	l := alone(t)
	l.fold(t, 3)
	l.blobs.spoil = func(data []byte) []byte {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
		return data
	}
	if l.stored(t, asIs) || len(l.board.entries) != 0 || len(l.blobs.blobs) != 0 {
		t.Errorf("%d pointers, %d blobs", len(l.board.entries), len(l.blobs.blobs))
	}
	l.blobs.spoil = nil
	if !l.stored(t, asIs) || l.stored(t, asIs) || len(l.board.entries) != 1 || len(l.blobs.blobs) != 1 {
		t.Errorf("%d pointers, %d blobs: a checkpoint has one snapshot", len(l.board.entries), len(l.blobs.blobs))
	}
}

// TestASnapshotIsWhatItsPointerSays, or it is not loaded.
func TestASnapshotIsWhatItsPointerSays(t *testing.T) {
	l := alone(t)
	l.fold(t, 3)
	good := fleet.Snapshot{Attestation: fleet.Attest(l.core.model), Object: "x"}
	l.blobs.blobs["x"] = l.core.model.AppendState(nil)
	if _, err := fleet.LoadSnapshot(t.Context(), l.blobs, l.cfg.Spec, good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*fleet.Snapshot){
		"sequence":    func(s *fleet.Snapshot) { s.Seq = 2 },
		"incarnation": func(s *fleet.Snapshot) { s.Incarnation = "j" },
		"contract":    func(s *fleet.Snapshot) { s.Contract = "c" },
		"encoding":    func(s *fleet.Snapshot) { s.Encoding = "e" },
		"log chain":   func(s *fleet.Snapshot) { s.LogChain = "l" },
		"state chain": func(s *fleet.Snapshot) { s.StateChain = "s" },
		"digest":      func(s *fleet.Snapshot) { s.Digest = "d" },
	} {
		foreign := good
		change(&foreign)
		if _, err := fleet.LoadSnapshot(t.Context(), l.blobs, l.cfg.Spec, foreign); err == nil {
			t.Errorf("another %s: it is loaded", name)
		}
	}
}

// mute is a store that does not answer.
type mute struct{ *cellar }

func (mute) Get(context.Context, string) ([]byte, error) { return nil, errors.New("no answer") }

// ending is a log that is asked for its end alone.
type ending struct {
	Log
	last uint64
}

func (e *ending) End(context.Context) (first, last uint64, err error) { return 1, e.last, nil }

// TestWhichSnapshotIsUsable: the newest of this log and contract that fits it,
// and what cannot be used is set aside for good, with its reason.
func TestWhichSnapshotIsUsable(t *testing.T) {
	l := alone(t)
	l.fold(t, 2)
	l.stored(t, asIs)
	l.fold(t, 4)
	l.stored(t, asIs)
	l.cfg.Log = &ending{last: 9}
	if m, _ := l.usable(t.Context(), "i", 1, 3, math.MaxUint64); m == nil || m.Seq() != 4 {
		t.Error("the log has grown since it was asked, and the newest is not used")
	}
	for _, c := range []struct {
		name               string
		incarnation        string
		first, last, limit uint64
		want               uint64 // 0: none
		aside              int
	}{
		{"the newest", "i", 1, 9, math.MaxUint64, 4, 0},
		{"the log's end is its end", "i", 1, 4, math.MaxUint64, 4, 0},
		{"genesis cut", "", 4, 9, math.MaxUint64, 4, 0},
		{"cut behind it", "i", 5, 9, math.MaxUint64, 0, 0},
		{"a trial's limit", "i", 1, 9, 3, 2, 0},
		{"another incarnation", "j", 1, 9, math.MaxUint64, 0, 0},
		{"past the log's end", "i", 1, 3, math.MaxUint64, 2, 1},
		{"set aside before", "i", 1, 9, math.MaxUint64, 2, 1},
	} {
		l.cfg.Log = &ending{last: c.last}
		m, s := l.usable(t.Context(), c.incarnation, c.first, c.last, c.limit)
		got := uint64(0)
		if m != nil {
			got = m.Seq()
		}
		asides, err := fleet.RejectedSnapshots(t.Context(), l.board)
		if got != c.want || (s == nil) != (c.want == 0) || err != nil || len(asides) != c.aside {
			t.Errorf("%s: %d is used, want %d; %d are set aside", c.name, got, c.want, len(asides))
		}
	}
	// A store that does not answer says nothing of the snapshot.
	l.cfg.Snapshots = mute{l.blobs}
	if m, _ := l.usable(t.Context(), "i", 1, 9, 3); m != nil {
		t.Error("what was not read is used")
	}
	if asides, _ := fleet.RejectedSnapshots(t.Context(), l.board); len(asides) != 1 {
		t.Errorf("%+v", asides)
	}
}

// TestAnotherContractsSnapshot is passed over without a word.
func TestAnotherContractsSnapshot(t *testing.T) {
	l := alone(t)
	l.fold(t, 2)
	l.stored(t, asIs)
	other := alone(t)
	other.board, other.cfg.Checkpoints = l.board, l.board
	spec := model.DefaultSpec()
	spec.DedupWindow++
	other.cfg.Spec = spec
	if m, _ := other.usable(t.Context(), "i", 1, 9, math.MaxUint64); m != nil {
		t.Error("it is used")
	}
	if asides, _ := fleet.RejectedSnapshots(t.Context(), l.board); len(asides) != 0 {
		t.Errorf("%+v", asides)
	}
}
