package serve

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

	"go.uber.org/goleak"

	"lockstep/bus"
	"lockstep/bus/bustest"
	"lockstep/model"
	"lockstep/worker/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait of a test.
const patience = time.Minute

const (
	row    = `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}`
	gentoo = `{"attributes":` + row + `,"species":"Gentoo"}`
	adelie = `{"attributes":` + row + `,"species":"Adelie"}`
)

// rig is a server whose replica is a model that the test folds: message by
// message with fold, or all that a log holds with tail.
type rig struct {
	*Server
	t     testing.TB
	onLog func() (bool, error)
	asked sync.WaitGroup // requests that are not answered

	mu    sync.Mutex
	model *model.Model // guarded by mu; nil: it has failed
	seq   uint64       // guarded by mu
}

func newRig(t testing.TB, spec *model.Spec) *rig {
	t.Helper()
	m, err := model.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, model: m, onLog: func() (bool, error) { return true, nil }}
	r.Server = New(Config{
		Name: "a", Boot: "1", Stream: "PENGUINS", Version: "1.2.3", Spec: spec,
		Services: services{&r.asked}, Predicted: &tally{}, Logger: slog.New(slog.DiscardHandler),
	})
	r.Use(r)
	r.Server.Open(0)
	return r
}

// The methods of Replica.

func (r *rig) Lock() *model.Model { r.mu.Lock(); return r.model }
func (r *rig) Unlock()            { r.mu.Unlock() }
func (r *rig) Unready() string    { return "it is on a rig" }

func (r *rig) OnLog(context.Context) (bool, error) { return r.onLog() }

func (r *rig) Describe(s *fleet.Status) { s.Replica = r.cfg.Name }

func (r *rig) Applied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

// apply folds a message, as a replica does.
func (r *rig) apply(msg model.Message) {
	e := model.NewEntry(r.cfg.Spec)
	e.Read(msg)
	r.mu.Lock()
	result := r.model.ApplyEntry(e)
	r.seq = msg.Seq
	r.mu.Unlock()
	r.Server.Applied(e, result)
}

// fold applies a genesis and then learn events, up to a sequence.
func (r *rig) fold(to uint64) {
	for seq := r.Applied() + 1; seq <= to; seq++ {
		msg := model.Message{Seq: seq, Subject: model.SubjectLearn, Data: []byte(gentoo), Time: int64(seq)}
		if seq == 1 {
			msg.Subject, msg.Data = model.SubjectGenesis, model.NewGenesis(r.cfg.Spec, "i")
		}
		r.apply(msg)
	}
}

// tail has the server append to a log, and folds all that comes to be in it,
// until the test ends.
func (r *rig) tail(memory *bustest.Log, log Log) {
	r.t.Helper()
	r.cfg.Log = log
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- memory.Tail(ctx, bus.Position{}, func(msg *bus.Message) error {
			r.apply(model.Message{
				Seq: msg.Seq, Subject: strings.TrimPrefix(msg.Subject, "penguins."), ID: msg.ID,
				Data: bytes.Clone(msg.Data), Time: msg.Time.UnixNano(),
			})
			return nil
		})
	}()
	r.t.Cleanup(func() { r.Leave(); cancel(); <-ended })
	if err := r.Join(); err != nil {
		r.t.Fatal(err)
	}
}

// services are those that no client reaches: the test calls the handlers. As
// with a real one, anyone who stops it waits for the answers.
type services struct{ asked *sync.WaitGroup }

func (s services) Open(bus.ServiceConfig) (bus.Service, error) { return s, nil }
func (services) Dropped() int                                  { return 0 }
func (services) Close()                                        {}

func (s services) Stop(ctx context.Context) error {
	answered := make(chan struct{})
	go func() { s.asked.Wait(); close(answered) }()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asking is a request as over NATS, and its answer.
type asking struct {
	t       testing.TB
	data    []byte
	headers map[string]string
	code    int
	body    []byte
	once    sync.Once
	ended   func()        // if set, is called once answered
	done    chan struct{} // closed once answered
}

func newAsking(t testing.TB, body string, headers ...string) *asking {
	a := &asking{t: t, data: []byte(body), headers: map[string]string{}, done: make(chan struct{})}
	for i := 0; i+1 < len(headers); i += 2 {
		a.headers[headers[i]] = headers[i+1]
	}
	return a
}

func (a *asking) Keep()                     {}
func (a *asking) Data() []byte              { return a.data }
func (a *asking) HeaderNames() []string     { return slices.Collect(maps.Keys(a.headers)) }
func (a *asking) Header(name string) string { return a.headers[name] }
func (a *asking) Reply(body []byte)         { a.end(0, bytes.Clone(body)) }

func (a *asking) Error(code int, _ string, body []byte) { a.end(code, body) }

func (a *asking) end(code int, body []byte) {
	a.once.Do(func() {
		a.code, a.body = code, body
		close(a.done)
		if a.ended != nil {
			a.ended()
		}
	})
}

// answered reports whether there is an answer.
func (a *asking) answered() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// reply waits for the answer. An error's is its body, with "code".
func (a *asking) reply() map[string]any {
	a.t.Helper()
	select {
	case <-a.done:
	case <-time.After(patience):
		a.t.Fatal("no answer")
	}
	var got map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil {
		a.t.Fatalf("answered %s: %v", a.body, err)
	}
	if a.code != 0 {
		got["code"] = float64(a.code)
	}
	return got
}

// want waits for the answer, and compares what it has under some keys.
func (a *asking) want(wants map[string]any) map[string]any {
	a.t.Helper()
	got := a.reply()
	for key, want := range wants {
		if fmt.Sprint(got[key]) != fmt.Sprint(want) {
			a.t.Errorf("%s: got %v, want %v, in %v", key, got[key], want, got)
		}
	}
	return got
}

// ask asks an endpoint, and does not wait.
func (r *rig) ask(verb, body string, headers ...string) *asking {
	r.t.Helper()
	a := newAsking(r.t, body, headers...)
	r.asked.Add(1)
	a.ended = r.asked.Done
	handlers := map[string]func(bus.Request){
		"predict": r.predict, "explain": r.explain, "teach": r.teach, "status": r.status,
	}
	handlers[verb](a)
	return a
}

var errNoMessage = errors.New("no such message")
