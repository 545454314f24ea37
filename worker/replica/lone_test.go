package replica

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/bus"
	"lockstep/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	row    = `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}`
	gentoo = `{"attributes":` + row + `,"species":"Gentoo"}`
	adelie = `{"attributes":` + row + `,"species":"Adelie"}`
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

// queue is a group of which the replica is a member or not.
type queue struct {
	joined bool
	err    error  // of Join
	waits  bool   // requests may wait
	said   string // what was called
}

func (q *queue) Join() error {
	q.said += " join"
	q.joined = q.err == nil
	return q.err
}

func (q *queue) Leave() {
	q.said += " leave"
	q.joined = false
}

func (q *queue) Close()                              { q.said, q.waits = q.said+" close", false }
func (q *queue) Open(uint64)                         { q.waits = true }
func (q *queue) Applied(*model.Entry, *model.Result) {}

// lone is a replica that nothing runs: the test sends it events, and applies
// messages by an attempt that has begun.
type lone struct {
	*Replica
	group *queue
	board *shelf
	blobs *cellar
}

func alone(t testing.TB) *lone {
	t.Helper()
	l := &lone{group: &queue{}, board: &shelf{entries: map[string][]byte{}}, blobs: &cellar{blobs: map[string][]byte{}}}
	var err error
	l.Replica, err = New(Config{
		Name: "a", Boot: "1", Stream: "PENGUINS", Version: "1.2.3", Spec: model.DefaultSpec(),
		Group: l.group, Logger: slog.New(slog.DiscardHandler),
		Heartbeats: &shelf{entries: map[string][]byte{}}, Checkpoints: l.board, Snapshots: l.blobs,
	})
	if err != nil {
		t.Fatal(err)
	}
	l.start = func(a *attempt, _ context.Context) { a.end = func() {} }
	l.send(started{}, began{})
	return l
}

// begin has the attempt end and another begin, whose target is a sequence.
func (l *lone) begin(target uint64) { l.send(ended{}, began{target}) }

// send has the owner take an event, and those that came before it.
func (l *lone) send(events ...any) {
	l.pump(context.Background())
	for _, e := range events {
		l.step(context.Background(), e)
	}
	l.pump(context.Background())
}

// fold applies a genesis and then learn events, up to a sequence.
func (l *lone) fold(t testing.TB, to uint64) {
	t.Helper()
	for seq := l.Applied() + 1; seq <= to; seq++ {
		msg := bus.Message{Seq: seq, Subject: "penguins.learn", Data: []byte(gentoo), Time: time.Unix(int64(seq), 0)}
		if seq == 1 {
			msg.Subject, msg.Data = "penguins.ctl.genesis", model.NewGenesis(l.cfg.Spec, "i")
		}
		if err := l.current.deliver(read(l.cfg.Spec, &msg)); err != nil {
			t.Fatal(err)
		}
	}
	l.send()
}

// read makes a message ready for the fold.
func read(spec *model.Spec, msg *bus.Message) *entry {
	e := &entry{Entry: *model.NewEntry(spec)}
	e.read(spec.Name, msg)
	return e
}
