package replica

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// TestJoinsOnlyWhenFit: with all of the log that was there at the start, and
// neither on trial nor quarantined.
func TestJoinsOnlyWhenFit(t *testing.T) {
	for _, c := range []struct {
		name   string
		seq    uint64
		before []any // events
		joins  bool
	}{
		{"caught up", 3, nil, true},
		{"one behind", 2, nil, false},
		{"on trial", 3, []any{suspected{}}, false},
		{"quarantined", 3, []any{condemned{}}, false},
	} {
		l := alone(t)
		l.begin(3)
		l.send(c.before...)
		l.fold(t, c.seq)
		if l.group.joined != c.joins || (l.State() == fleet.Ready) != c.joins {
			t.Errorf("%s: got joined %t and %s, want joined %t", c.name, l.group.joined, l.State(), c.joins)
		}
	}
}

// TestAQuarantinedReplicaNeverAnswers: it leaves the group if it is in there,
// does not come back whatever it applies, and has no vote.
func TestAQuarantinedReplicaNeverAnswers(t *testing.T) {
	l := alone(t)
	l.fold(t, 2)
	if !l.group.joined || !l.heartbeat().Votes {
		t.Fatal("it did not join")
	}
	l.send(suspected{})
	if !l.heartbeat().Votes {
		t.Error("on trial it has no vote")
	}
	l.send(condemned{"for a test"})
	for _, e := range []any{began{2}, cleared{}, reached{}, fleetAt{99}, logEnds{1}, ended{}} {
		l.send(e)
		l.fold(t, l.Applied()+1)
		if l.group.joined || l.State() != fleet.Quarantined || l.heartbeat().Votes {
			t.Fatalf("after %T: got joined %t, %s, votes %t", e, l.group.joined, l.State(), l.heartbeat().Votes)
		}
	}
	l.send(stopAsked{}) // but it can be stopped
	if l.State() != fleet.Draining {
		t.Errorf("asked to stop it is %s, want draining", l.State())
	}
}

// TestTrials: what a ruling means for a replica, before and after it has
// replayed from the start.
func TestTrials(t *testing.T) {
	mine := fleet.Attestation{Replica: "a", Seq: 7, Digest: "x"}
	other := fleet.Attestation{Replica: "b", Seq: 7, Digest: "y"}
	for _, c := range []struct {
		name        string
		ruling      fleet.Ruling
		before      string // the digest before it replayed from the start; empty: it has not
		healings    int    // so far
		trial       bool   // is under way afterwards
		quarantined bool
		advisory    string
	}{
		{"nobody differs", fleet.Unanimous, "", 0, false, false, ""},
		{"the majority agrees", fleet.Upheld, "", 0, false, false, "goes on"},
		{"the majority does not", fleet.Outvoted, "", 0, true, false, "folds anew"},
		{"there is none", fleet.Split, "", 0, true, false, "folds anew"},
		{"healed", fleet.Unanimous, "z", 0, false, false, "healing 1"},
		{"healed by a majority", fleet.Upheld, "z", 1, false, false, "healing 2"},
		{"healed once too often", fleet.Unanimous, "z", 2, false, true, "healed 3 times"},
		{"it was right", fleet.Unanimous, "x", 2, false, false, "was right"},
		{"wrong again", fleet.Outvoted, "z", 0, false, true, "still differs"},
		{"wrong in the same way", fleet.Outvoted, "x", 0, false, true, "still differs"},
		{"not the same twice", fleet.Split, "z", 0, false, true, "folded twice"},
	} {
		l := alone(t)
		l.fold(t, 2)
		a := l.audit
		at := &checkpoint{Attestation: mine, at: time.Now().Add(-time.Minute)}
		a.healings = c.healings
		if c.before != "" {
			before := mine
			before.Digest = c.before
			l.send(suspected{})
			a.trial = &trial{before: before, after: &mine, began: time.Now()}
		}
		a.settle(t.Context(), at, c.ruling, []fleet.Attestation{other}, nil)
		l.send()
		said, suspended := l.Advisory(), l.Standing().Suspended
		if (a.trial != nil) != c.trial || suspended != c.trial || (l.State() == fleet.Quarantined) != c.quarantined ||
			!strings.Contains(said, c.advisory) {
			t.Errorf("%s: got on trial %t, suspended %t, %s: %s", c.name, a.trial != nil, suspended, l.State(), said)
		}
	}
}

// TestPeersAreOfTheSameLog: heartbeats of another incarnation, contract or
// encoding are no one's vote; one that has read no genesis yet is a peer.
func TestPeersAreOfTheSameLog(t *testing.T) {
	l := alone(t)
	l.fold(t, 2)
	own := l.heartbeat()
	like := func(name string, change func(*fleet.Heartbeat)) fleet.Heartbeat {
		h := own
		h.Replica = name
		change(&h)
		return h
	}
	l.meet([]fleet.Heartbeat{own,
		like("fresh", func(h *fleet.Heartbeat) { h.Incarnation = "" }),
		like("same", func(*fleet.Heartbeat) {}),
		like("w-incarnation", func(h *fleet.Heartbeat) { h.Incarnation = "j"; h.Seq += 2 * fleet.MaxBehind }),
		like("w-contract", func(h *fleet.Heartbeat) { h.Contract = "c"; h.Seq += 2 * fleet.MaxBehind }),
		like("w-encoding", func(h *fleet.Heartbeat) { h.Encoding = "e"; h.Seq += 2 * fleet.MaxBehind }),
	}, true)
	var names []string
	for _, p := range l.Fleet() {
		names = append(names, p.Replica)
	}
	l.send()
	if !slices.Equal(names, []string{"a", "fresh", "same"}) || l.State() != fleet.Ready {
		t.Errorf("the peers are %v, it is %s", names, l.State())
	}
	l.meet(
		[]fleet.Heartbeat{own, like("far", func(h *fleet.Heartbeat) { h.Seq += 2 * fleet.MaxBehind; h.Votes = false })},
		true,
	)
	l.send()
	if l.State() != fleet.Ready {
		t.Error("it follows one that does not serve")
	}
	l.meet([]fleet.Heartbeat{own, like("junk", func(h *fleet.Heartbeat) { h.Seq = math.MaxUint64 })}, true)
	l.send()
	if l.State() != fleet.Ready {
		t.Error("it follows one that says that it is further than the log")
	}
	l.lag.end.Store(own.Seq + 2*fleet.MaxBehind)
	l.meet([]fleet.Heartbeat{own, like("far", func(h *fleet.Heartbeat) { h.Seq += 2 * fleet.MaxBehind })}, true)
	l.send()
	if l.State() != fleet.Replaying || l.group.joined {
		t.Errorf("far behind it is %s", l.State())
	}
}

// TestOnlyItsOwnLog: a genesis of another contract, or none, is refused, and
// only the message that was applied last passes for the tip.
func TestOnlyItsOwnLog(t *testing.T) {
	l := alone(t)
	other := model.DefaultSpec()
	other.DedupWindow++
	if err := l.current.deliver(read(l.cfg.Spec, &bus.Message{Seq: 1, Subject: "penguins.ctl.genesis", Data: model.NewGenesis(other, "i")})); !errors.Is(
		err, ErrContract,
	) {
		t.Errorf("another contract: %v", err)
	}
	if err := l.current.deliver(read(l.cfg.Spec, &bus.Message{Seq: 1, Subject: "penguins.learn", Data: []byte(gentoo)})); err == nil {
		t.Error("a log without a genesis is learned")
	}
	l.fold(t, 3)
	tip := bus.Message{Seq: 3, Subject: "penguins.learn", Data: []byte(gentoo), Time: time.Unix(3, 0)}
	check := l.core.position().Check
	if !check(&tip) {
		t.Error("the tip is not known")
	}
	for _, change := range []func(*bus.Message){
		func(m *bus.Message) { m.Data = []byte(adelie) },
		func(m *bus.Message) { m.ID = "id" },
		func(m *bus.Message) { m.Time = time.Unix(4, 0) },
		func(m *bus.Message) { m.Subject = "penguins.ctl.checkpoint" },
		func(m *bus.Message) { m.Seq = 4 },
	} {
		another := tip
		change(&another)
		if check(&another) {
			t.Errorf("%+v passes for the tip", another)
		}
	}
}
