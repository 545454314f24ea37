//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/model"
)

// These tests kill and stop what a fleet is made of while many clients teach
// it. A client asks again under the same id until it is answered; what it
// was told must then be what the log says.

const (
	killConnections = 16
	killTeaches     = 2000
	killSlack       = 64          // teaches that may begin while a fault is due
	killAsk         = time.Second // a client's patience with one attempt
)

// brokerEnv makes this test binary a nats-server: PORT:STORE.
const brokerEnv = "LOCKSTEP_TEST_BROKER"

// A server that is to be killed needs a process of its own. init comes before
// testscript looks at the command's name.
func init() {
	port, store, found := strings.Cut(os.Getenv(brokerEnv), ":")
	if !found {
		return
	}
	if err := serveBroker(port, store); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveBroker(text, store string) error {
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	s, err := broker.Start(context.Background(), broker.Config{StoreDir: store, Port: port})
	if err != nil {
		return err
	}
	fmt.Printf("port %d.\n", s.Port())
	for parent := os.Getppid(); os.Getppid() == parent; { // it does not outlive the test
		time.Sleep(100 * time.Millisecond)
	}
	return s.Shutdown()
}

// startBroker starts a nats-server process on a store, at a port or at a free
// one if that is "0".
func startBroker(t *testing.T, store, port string) (*process, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, groups, err := startProcess(
		t.TempDir(), append(os.Environ(), brokerEnv+"="+port+":"+store), `^port (\d+)\.`, self,
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(syscall.SIGKILL) })
	return p, groups[1]
}

// chance is seeded from the clock, or from LOCKSTEP_SEED.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LOCKSTEP_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOCKSTEP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// lessonAnswer is the answer to a teach.
type lessonAnswer struct {
	Seq       uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
	Status    string `json:"status"`
	Learned   uint64 `json:"learned"`
}

func (a lessonAnswer) same(b lessonAnswer) bool {
	return a.Seq == b.Seq && a.Status == b.Status && a.Learned == b.Learned
}

// foretold is an answer to a prediction.
type foretold struct {
	row     []byte
	Species *string `json:"species"`
	Seq     uint64  `json:"seq"`
	Learned uint64  `json:"learned"`
}

// pupils are clients that teach a fleet which is not well.
type pupils struct {
	rows    [][]byte
	predict bool           // after each teach, asking for what was taught
	enough  func(int) bool // whether the event of this number is one too many
	allowed atomic.Int64   // teaches that may begin by now

	begun    atomic.Int64
	answered atomic.Int64
	clients  sync.WaitGroup

	mu       sync.Mutex
	answers  map[string]lessonAnswer // by id; guarded by mu
	foretold []foretold              // guarded by mu
	failures map[string]int          // attempts that failed, by why; guarded by mu
	broken   []error                 // what no retry may fix; guarded by mu
}

func newPupils(t *testing.T) *pupils {
	p := &pupils{rows: penguinEvents(t), answers: map[string]lessonAnswer{}, failures: map[string]int{}}
	p.enough = func(i int) bool { return i >= killTeaches }
	return p
}

// start has all connections teach.
func (p *pupils) start(t *testing.T, url string) {
	ctx := t.Context()
	for range killConnections {
		nc := connectTo(t, url)
		p.clients.Go(func() {
			for ctx.Err() == nil {
				i := int(p.begun.Add(1)) - 1
				if p.enough(i) {
					return
				}
				for int64(i) >= p.allowed.Load() && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				if err := p.event(ctx, nc, i); err != nil {
					p.mu.Lock()
					p.broken = append(p.broken, fmt.Errorf("event %d: %w", i, err))
					p.mu.Unlock()
				}
				p.answered.Add(1)
			}
		})
	}
}

func killID(i int) string { return fmt.Sprintf("kill-%d", i) }

func (p *pupils) row(i int) []byte { return p.rows[i%len(p.rows)] }

// event teaches one event and, if so wished, predicts after it.
func (p *pupils) event(ctx context.Context, nc *bus.Conn, i int) error {
	var a lessonAnswer
	if err := p.ask(ctx, nc, "penguins.teach", p.row(i), nats.Header{"Nats-Msg-Id": {killID(i)}}, &a); err != nil {
		return err
	}
	if a.Seq == 0 || !strings.HasPrefix(a.Status, "learned ") {
		return fmt.Errorf("the teach was answered %+v", a)
	}
	p.mu.Lock()
	p.answers[killID(i)] = a
	p.mu.Unlock()
	if !p.predict {
		return nil
	}
	var event struct {
		Attributes json.RawMessage `json:"attributes"`
	}
	if err := json.Unmarshal(p.row(i), &event); err != nil {
		return err
	}
	f := foretold{row: event.Attributes}
	if err := p.ask(ctx, nc, "penguins.predict", event.Attributes, nats.Header{"Lockstep-Min-Seq": {strconv.FormatUint(a.Seq, 10)}}, &f); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.foretold = append(p.foretold, f)
	if f.Seq < a.Seq {
		return fmt.Errorf("predicted at %d, when %d was asked for", f.Seq, a.Seq)
	}
	return nil
}

// ask asks until there is an answer that no retry would change.
func (p *pupils) ask(
	ctx context.Context, nc *bus.Conn, subject string, data []byte, header nats.Header, into any,
) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, killAsk)
		answer, err := bus.Ask(attempt, nc, subject, data, header)
		done()
		if err == nil {
			return json.Unmarshal(answer.Data, into)
		}
		var remote *bus.RemoteError
		why := "another error"
		switch {
		case errors.As(err, &remote) && remote.Code != 503 && remote.Code != 504:
			return err
		case errors.As(err, &remote):
			why = strconv.Itoa(remote.Code)
		case errors.Is(err, bus.ErrNobody):
			why = "nobody there"
		case errors.Is(err, context.DeadlineExceeded):
			why = "no answer"
		}
		p.mu.Lock()
		p.failures[why]++
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// reach waits until so many teaches were answered, and holds them there, more
// or less, until the next call.
func (p *pupils) reach(t *testing.T, n int) {
	t.Helper()
	p.allowed.Store(int64(n + killSlack))
	for deadline := time.Now().Add(patience); p.answered.Load() < int64(n); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d teaches answered", p.answered.Load(), n)
		}
	}
}

// wait lets the clients end, and fails for what no retry mended.
func (p *pupils) wait(t *testing.T) {
	t.Helper()
	p.allowed.Store(1 << 40)
	p.clients.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	repeats := 0 // stored by an attempt that was not answered
	for _, a := range p.answers {
		if a.Duplicate {
			repeats++
		}
	}
	t.Logf(
		"%d teaches (%d of them as repeats) and %d predictions answered; failed attempts before that: %v",
		len(p.answers), repeats, len(p.foretold), p.failures,
	)
	for _, err := range p.broken {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// audit compares the fleet and everything it answered with a fold of the log
// in the test itself.
func (p *pupils) audit(t *testing.T, url string, workers int) {
	t.Helper()
	nc := connectTo(t, url)
	m, first := p.fold(t, nc)
	if int(m.Learned()) != len(p.answers) || m.Rejected() != 0 {
		t.Errorf(
			"the log has %d learned and %d rejected events, %d teaches were answered", m.Learned(), m.Rejected(),
			len(p.answers),
		)
	}
	for _, id := range slices.Sorted(maps.Keys(p.answers)) {
		if told, ok := first[id]; !ok || !told.same(p.answers[id]) {
			t.Errorf("%s was answered %+v; in the log it is %+v", id, p.answers[id], told)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	p.awaitDigest(t, nc, workers, m)

	// Asking again gets the first answer, whichever worker it meets.
	for i := range p.answers {
		n, _ := strconv.Atoi(strings.TrimPrefix(i, "kill-"))
		var again lessonAnswer
		if err := p.ask(t.Context(), nc, "penguins.teach", p.row(n), nats.Header{"Nats-Msg-Id": {i}}, &again); err != nil {
			t.Errorf("%s, asked again: %v", i, err)
		} else if !again.Duplicate || !again.same(p.answers[i]) {
			t.Errorf("%s was answered %+v, and when asked again %+v", i, p.answers[i], again)
		}
	}
	p.awaitDigest(t, nc, workers, m)
	t.Logf(
		"%d workers agree with the log: %d messages, %d learned, %d repeats", workers, m.Seq(), m.Learned(),
		m.Duplicates(),
	)
}

var errEnd = errors.New("the end")

// asFolded is a message of the log as a replica folds it.
func asFolded(msg *bus.Message) model.Message {
	return model.Message{
		Seq: msg.Seq, Subject: strings.TrimPrefix(msg.Subject, "penguins."), ID: msg.ID,
		Data: msg.Data, Time: msg.Time.UnixNano(),
	}
}

// fold folds the log, and checks each prediction at its sequence. It returns
// the model and what the log says of each id.
func (p *pupils) fold(t *testing.T, nc *bus.Conn) (*model.Model, map[string]lessonAnswer) {
	t.Helper()
	m, err := model.New(model.DefaultSpec())
	if err != nil {
		t.Fatal(err)
	}
	log, err := bus.BindLog(t.Context(), nc, bus.LogConfig{Model: "penguins"})
	if err != nil {
		t.Fatal(err)
	}
	_, last, err := log.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	due := map[uint64][]foretold{}
	for _, f := range p.foretold {
		due[f.Seq] = append(due[f.Seq], f)
	}
	decoder := model.NewDecoder(m.Spec())
	first := map[string]lessonAnswer{}
	from := bus.Position{Check: func(msg *bus.Message) bool { return m.IsTip(asFolded(msg)) }}
	err = log.Tail(t.Context(), from, func(msg *bus.Message) error {
		for _, o := range m.Apply(asFolded(msg)).Outcomes {
			if o.Verdict != model.Learned {
				continue
			}
			predicted := "None"
			if o.Answer.Known {
				predicted = o.Answer.Predicted.String()
			}
			if _, twice := first[msg.ID]; twice {
				t.Errorf("%s is learned twice, again at %d", msg.ID, msg.Seq)
			}
			first[msg.ID] = lessonAnswer{
				Seq: msg.Seq, Learned: o.Answer.Learned,
				Status: fmt.Sprintf("learned %s. Initially predicted %s", o.Answer.Label, predicted),
			}
		}
		for _, f := range due[msg.Seq] {
			row, err := decoder.Attributes(f.row)
			if err != nil {
				return err
			}
			if is := m.Predict(row); f.Species == nil || *f.Species != is.Label.String() || f.Learned != m.Learned() {
				t.Errorf("at %d the prediction was %+v, in the log it is %s with %d learned", f.Seq, f, is.Label, m.Learned())
			}
		}
		delete(due, msg.Seq)
		if msg.Seq >= last {
			return errEnd
		}
		return nil
	})
	if !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	if len(due) > 0 {
		t.Errorf("predictions at %d sequences that the log does not have", len(due))
	}
	return m, first
}

// awaitDigest waits until every worker has the state of a model, and no other.
func (p *pupils) awaitDigest(t *testing.T, nc *bus.Conn, workers int, m *model.Model) {
	t.Helper()
	want := m.Digest()
	for deadline := time.Now().Add(patience); ; {
		fleet, err := fleetStatus(t.Context(), nc, "penguins", 200*time.Millisecond)
		same := 0
		for _, s := range fleet {
			if s.State == "ready" && s.Seq == m.Seq() && s.Learned == m.Learned() && s.Digest == fmt.Sprintf("%x", want) {
				same++
			}
		}
		if err == nil && same == workers && len(fleet) == workers {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf(
				"the fleet is not %d workers at %d with %d learned, digest %x: %v %+v", workers, m.Seq(),
				m.Learned(), want, err, fleet,
			)
		}
	}
}

var killNames = []string{"w1", "w2", "w3", "w4"}

// TestKilledWorkers: no acknowledged event is lost, and none is learned
// twice, when workers die at any moment.
func TestKilledWorkers(t *testing.T) {
	const kills = 20
	random := chance(t)
	url := server(t)
	fleet := startWorkers(t, url, killNames...)
	p := newPupils(t)
	p.start(t, url)
	for k := range kills {
		p.reach(t, k*killTeaches/kills+random.IntN(killTeaches/kills/2))
		victim := random.IntN(len(fleet))
		fleet[victim].stop(syscall.SIGKILL)
		fleet[victim] = startWorkers(t, url, killNames[victim])[0]
	}
	p.wait(t)
	if len(p.answers) != killTeaches {
		t.Errorf("%d events answered", len(p.answers))
	}
	p.audit(t, url, len(fleet))
}

// TestKilledServer: the same when the server dies and comes back on its store.
func TestKilledServer(t *testing.T) {
	const kills = 5
	random := chance(t)
	store := t.TempDir()
	server, port := startBroker(t, store, "0")
	url := "nats://127.0.0.1:" + port
	startWorkers(t, url, killNames...)
	p := newPupils(t)
	p.start(t, url)
	for k := range kills {
		p.reach(t, k*killTeaches/kills+random.IntN(killTeaches/kills/2))
		server.stop(syscall.SIGKILL)
		server, _ = startBroker(t, store, port)
	}
	p.wait(t)
	if len(p.answers) != killTeaches {
		t.Errorf("%d events answered", len(p.answers))
	}
	p.audit(t, url, len(killNames))
}

// TestStoppedWorker: a worker that hangs and comes back answers nothing from
// before its hang to who asks for later, and catches up.
func TestStoppedWorker(t *testing.T) {
	const before, after, stopped = 300, 300, 5 * time.Second
	random := chance(t)
	url := server(t)
	fleet := startWorkers(t, url, killNames...)
	p := newPupils(t)
	p.predict = true
	var end atomic.Int64
	p.enough = func(i int) bool { return end.Load() > 0 && int64(i) >= end.Load() }
	p.start(t, url)
	p.reach(t, before)
	p.allowed.Store(1 << 40)
	victim := fleet[random.IntN(len(fleet))].cmd.Process
	if err := victim.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(stopped)
	meanwhile := p.answered.Load() - before
	if err := victim.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	end.Store(p.begun.Load() + after)
	p.wait(t)
	t.Logf("about %d events while one worker was stopped for %s", meanwhile, stopped)
	if meanwhile < killConnections {
		t.Errorf("%d events in %s with one worker stopped", meanwhile, stopped)
	}
	p.audit(t, url, len(fleet))
}
