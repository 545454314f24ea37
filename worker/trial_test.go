package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// shelf is a board in memory.
type shelf struct {
	mu      sync.Mutex
	entries map[string][]byte
}

func (b *shelf) Put(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[key] = value
	return nil
}

func (b *shelf) Create(_ context.Context, key string, value []byte) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, found := b.entries[key]; found {
		return false, nil
	}
	b.entries[key] = value
	return true, nil
}

func (b *shelf) Remove(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.entries, func(k string, _ []byte) bool { return k == key || strings.HasPrefix(k, key+".") })
	return nil
}

func (b *shelf) List(_ context.Context, key string) (out []bus.Entry, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(b.entries)) {
		if strings.HasPrefix(k, key+".") {
			out = append(out, bus.Entry{Key: k, Value: b.entries[k]})
		}
	}
	return out, nil
}

// cellar is a store of blobs in memory, which may spoil what it stores.
type cellar struct {
	blobs map[string][]byte
	spoil func([]byte) []byte
}

func (c *cellar) Put(_ context.Context, name string, data []byte) error {
	if c.spoil != nil {
		data = c.spoil(data)
	}
	c.blobs[name] = data
	return nil
}

func (c *cellar) Get(_ context.Context, name string) ([]byte, error) {
	data, found := c.blobs[name]
	if !found {
		return nil, bus.ErrDamaged
	}
	return data, nil
}

func (c *cellar) Remove(_ context.Context, name string) error {
	delete(c.blobs, name)
	return nil
}

// porch is doors that nobody knocks at: how many stand open.
type porch struct{ open int }

func (p *porch) Close()                                      {}
func (p *porch) Open(bus.ServiceConfig) (bus.Service, error) { p.open++; return p, nil }
func (p *porch) Dropped() int                                { return 0 }
func (p *porch) Stop(context.Context) error                  { p.open--; return nil }

// lone is a worker that nothing runs.
type lone struct {
	*Worker
	doors *porch
	board *shelf
	blobs *cellar
}

func alone(t *testing.T) *lone {
	t.Helper()
	l := &lone{doors: &porch{}, board: &shelf{entries: map[string][]byte{}}, blobs: &cellar{blobs: map[string][]byte{}}}
	var err error
	l.Worker, err = New(Config{
		Name: "a", Stream: "PENGUINS", Version: "1.2.3", Spec: model.DefaultSpec(), Doors: l.doors, Logger: slog.New(slog.DiscardHandler),
		Heartbeats: &shelf{entries: map[string][]byte{}}, Checkpoints: l.board, Snapshots: l.blobs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fold applies a genesis and then learn events, up to a sequence.
func (l *lone) fold(t *testing.T, to uint64) {
	t.Helper()
	for seq := l.replica.applied.Load() + 1; seq <= to; seq++ {
		msg := bus.Message{Seq: seq, Subject: "penguins.learn", Data: []byte(gentoo), Time: time.Unix(int64(seq), 0)}
		if seq == 1 {
			msg.Subject, msg.Data = "penguins.ctl.genesis", model.NewGenesis(l.cfg.Spec, "i")
		}
		if err := l.deliver(read(l.cfg.Spec, &msg)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJoinsOnlyWhenFit: with all of the log that was there at the start, and
// neither on trial nor quarantined.
func TestJoinsOnlyWhenFit(t *testing.T) {
	for _, c := range []struct {
		name                   string
		seq                    uint64
		suspended, quarantined bool
		joins                  bool
	}{
		{"caught up", 3, false, false, true},
		{"one behind", 2, false, false, false},
		{"on trial", 3, true, false, false},
		{"quarantined", 3, false, true, false},
	} {
		l := alone(t)
		l.target.Store(3)
		l.suspended.Store(c.suspended)
		l.setState(fleet.Replaying)
		l.quarantined.Store(c.quarantined)
		l.fold(t, c.seq)
		if (l.doors.open == 1) != c.joins || (l.State() == fleet.Ready) != c.joins {
			t.Errorf("%s: %d doors are open, it is %s", c.name, l.doors.open, l.State())
		}
		l.drain()
	}
}

// TestAQuarantinedReplicaNeverAnswers: it leaves the group if it is in there,
// does not come back whatever it applies, and has no vote.
func TestAQuarantinedReplicaNeverAnswers(t *testing.T) {
	l := alone(t)
	l.setState(fleet.Replaying)
	l.fold(t, 2)
	if l.doors.open != 1 || !l.heartbeat().Votes {
		t.Fatal("it did not join")
	}
	l.suspended.Store(true)
	if !l.heartbeat().Votes {
		t.Error("on trial it has no vote")
	}
	l.quarantine("for a test")
	for _, s := range []fleet.State{fleet.Restoring, fleet.Replaying, fleet.Ready} {
		l.setState(s)
		l.fold(t, l.replica.applied.Load()+1)
		if l.doors.open != 0 || l.State() != fleet.Quarantined || l.heartbeat().Votes {
			t.Fatalf("%d doors are open, it is %s, votes %t", l.doors.open, l.State(), l.heartbeat().Votes)
		}
	}
	l.setState(fleet.Draining) // but it can be stopped
	if l.State() != fleet.Draining {
		t.Error("it cannot be stopped")
	}
}

// TestTrials: what a ruling means for a replica, before and after it has
// folded anew.
func TestTrials(t *testing.T) {
	mine := fleet.Attestation{Replica: "a", Seq: 7, Digest: "x"}
	other := fleet.Attestation{Replica: "b", Seq: 7, Digest: "y"}
	for _, c := range []struct {
		name        string
		ruling      fleet.Ruling
		before      string // the digest before it folded anew; empty: it has not
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
		l.setState(fleet.Replaying)
		l.fold(t, 2)
		a := l.audit
		at := &checkpoint{Attestation: mine, at: time.Now().Add(-time.Minute)}
		a.healings = c.healings
		if c.before != "" {
			before := mine
			before.Digest = c.before
			l.suspended.Store(true)
			a.trial = &trial{before: before, after: &mine, began: time.Now()}
		}
		a.settle(t.Context(), at, c.ruling, []fleet.Attestation{other}, nil)
		said := l.advisory()
		if (a.trial != nil) != c.trial || l.suspended.Load() != c.trial && !c.quarantined || (l.State() == fleet.Quarantined) != c.quarantined || !strings.Contains(said, c.advisory) {
			t.Errorf("%s: on trial %t, suspended %t, %s: %s", c.name, a.trial != nil, l.suspended.Load(), l.State(), said)
		}
		l.drain()
	}
}

// TestPeersAreOfTheSameLog: heartbeats of another incarnation, contract or
// encoding are nobody's vote; one that has read no genesis yet is a peer.
func TestPeersAreOfTheSameLog(t *testing.T) {
	l := alone(t)
	l.setState(fleet.Replaying)
	l.fold(t, 2)
	own := l.heartbeat()
	like := func(name string, change func(*fleet.Heartbeat)) fleet.Heartbeat {
		h := own
		h.Replica = name
		change(&h)
		return h
	}
	l.learnOf([]fleet.Heartbeat{own,
		like("fresh", func(h *fleet.Heartbeat) { h.Incarnation = "" }),
		like("same", func(*fleet.Heartbeat) {}),
		like("w-incarnation", func(h *fleet.Heartbeat) { h.Incarnation = "j"; h.Seq += 2 * fleet.MaxBehind }),
		like("w-contract", func(h *fleet.Heartbeat) { h.Contract = "c"; h.Seq += 2 * fleet.MaxBehind }),
		like("w-encoding", func(h *fleet.Heartbeat) { h.Encoding = "e"; h.Seq += 2 * fleet.MaxBehind }),
	}, true)
	var names []string
	for _, p := range l.peers() {
		names = append(names, p.Replica)
	}
	if !slices.Equal(names, []string{"a", "fresh", "same"}) || l.State() != fleet.Ready {
		t.Errorf("the peers are %v, it is %s", names, l.State())
	}
	l.learnOf([]fleet.Heartbeat{own, like("far", func(h *fleet.Heartbeat) { h.Seq += 2 * fleet.MaxBehind; h.Votes = false })}, true)
	if l.State() != fleet.Ready {
		t.Error("it follows one that does not serve")
	}
	l.learnOf([]fleet.Heartbeat{own, like("far", func(h *fleet.Heartbeat) { h.Seq += 2 * fleet.MaxBehind })}, true)
	if l.State() != fleet.Replaying || l.doors.open != 0 {
		t.Errorf("far behind it is %s", l.State())
	}
}

// TestOnlyItsOwnLog: a genesis of another contract, or none, is refused, and
// only the message that was applied last passes for the tip.
func TestOnlyItsOwnLog(t *testing.T) {
	l := alone(t)
	other := model.DefaultSpec()
	other.DedupWindow++
	if err := l.deliver(read(l.cfg.Spec, &bus.Message{Seq: 1, Subject: "penguins.ctl.genesis", Data: model.NewGenesis(other, "i")})); !errors.Is(err, ErrContract) {
		t.Errorf("another contract: %v", err)
	}
	if err := l.deliver(read(l.cfg.Spec, &bus.Message{Seq: 1, Subject: "penguins.learn", Data: []byte(gentoo)})); err == nil {
		t.Error("a log without a genesis is learned")
	}
	l.fold(t, 3)
	tip := bus.Message{Seq: 3, Subject: "penguins.learn", Data: []byte(gentoo), Time: time.Unix(3, 0)}
	check := l.replica.position().Check
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
	l.drain()
}

// asked is a request and its answer.
type asked struct {
	bus.Request
	code int
	body []byte
}

func (a *asked) Keep()                              {}
func (a *asked) Reply(body []byte)                  { a.body = bytes.Clone(body) }
func (a *asked) Error(code int, _ string, b []byte) { a.code, a.body = code, b }

// TestAnswersOfALesson: what the fold said decides, event by event; one bad
// event, and the whole is no success.
func TestAnswersOfALesson(t *testing.T) {
	learned := model.Outcome{Verdict: model.Learned, Answer: model.Answer{Seq: 5, Learned: 3, Label: "Gentoo"}}
	repeat := model.Outcome{Verdict: model.Duplicate, Answer: model.Answer{Seq: 2, Learned: 1, Label: "Gentoo"}}
	taken := repeat
	taken.Conflict = true
	rejected := model.Outcome{Verdict: model.Rejected, Problems: []model.Problem{{Type: "missing"}}}
	for _, c := range []struct {
		outcomes  []model.Outcome
		code      int
		seq       float64
		duplicate any
	}{
		{[]model.Outcome{learned}, 0, 5, nil},
		{[]model.Outcome{repeat}, 0, 2, true},
		{[]model.Outcome{taken}, 409, 0, nil},
		{[]model.Outcome{rejected}, 422, 0, nil},
		{[]model.Outcome{{}}, 422, 0, nil},
		{[]model.Outcome{repeat, learned}, 0, 5, nil},
		{[]model.Outcome{repeat, repeat}, 0, 5, true},
		{[]model.Outcome{learned, taken}, 409, 0, nil},
		{[]model.Outcome{rejected, learned}, 422, 0, nil},
		{[]model.Outcome{rejected, taken}, 409, 0, nil},
	} {
		l, req := alone(t), &asked{}
		l.answer(&lesson{req: req, batch: len(c.outcomes) > 1}, 5, c.outcomes)
		var body map[string]any
		if err := json.Unmarshal(req.body, &body); err != nil {
			t.Fatal(err)
		}
		if req.code != c.code || c.code == 0 && (body["seq"] != c.seq || body["duplicate"] != c.duplicate) {
			t.Errorf("%s: %d %s", fmt.Sprint(c.outcomes), req.code, req.body)
		}
	}
}

// TestQuarantineBeatsAJoin that had begun before.
func TestQuarantineBeatsAJoin(t *testing.T) {
	l := alone(t)
	l.target.Store(9)
	l.setState(fleet.Replaying)
	l.fold(t, 2)
	l.quarantined.Store(true) // quarantine has begun,
	l.leave()                 // and found nothing to leave
	if err := l.join(); err != nil {
		t.Fatal(err)
	}
	l.setState(fleet.Quarantined)
	if l.doors.open != 0 {
		t.Errorf("%s, and %d doors are open", l.State(), l.doors.open)
	}
	l.drain()
}
