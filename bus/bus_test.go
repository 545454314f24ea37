package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"lockstep/bus"
	"lockstep/bus/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait of a test.
const patience = time.Minute

func startServer(t *testing.T, config broker.Config) *broker.Server {
	t.Helper()
	if config.StoreDir == "" {
		config.StoreDir = t.TempDir()
	}
	s, err := broker.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown() }) // a second Shutdown changes nothing
	return s
}

func connect(t *testing.T, config bus.ConnectConfig) *bus.Conn {
	t.Helper()
	nc, err := bus.Connect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func newConn(t *testing.T) *bus.Conn {
	t.Helper()
	return connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
}

func logConfig() bus.LogConfig {
	return bus.LogConfig{Model: "m", Genesis: func() []byte { return []byte(bus.NewID()) }}
}

// TestARefusalStoresNothing, and says what JetStream says; a guard that holds
// is no hindrance.
func TestARefusalStoresNothing(t *testing.T) {
	log, err := bus.OpenLog(t.Context(), newConn(t), logConfig())
	if err != nil {
		t.Fatal(err)
	}
	last := func(seq string) bus.Guard { return bus.Guard{Header: "Nats-Expected-Last-Sequence", Value: seq} }
	for _, c := range []struct {
		data    []byte
		guards  []bus.Guard
		errCode int
	}{
		{[]byte("x"), []bus.Guard{last("7")}, 10071},
		{[]byte("x"), []bus.Guard{last("1"), {Header: "Nats-Expected-Last-Subject-Sequence", Value: "1"}}, 10071},
		{make([]byte, log.Limit()+1), nil, 0},
	} {
		_, err := log.Append(testContext(t), "m.learn", bus.NewID(), c.data, c.guards...)
		var refused *bus.RefusedError
		if !errors.As(err, &refused) || refused.ErrCode != c.errCode ||
			errors.Is(err, bus.ErrTooLarge) != (len(c.guards) == 0) {
			t.Errorf("%d bytes under %v: %v", len(c.data), c.guards, err)
		}
	}
	if ack, err := log.Append(testContext(t), "m.learn", "", []byte("x"), last("1")); err != nil || ack.Seq != 2 {
		t.Errorf("a guard that holds: %+v %v", ack, err)
	}
}

// TestTwoThatCreateAtOnceEndUpWithOneLog: and its first message is a genesis,
// and it was opened for learning once.
func TestTwoThatCreateAtOnceEndUpWithOneLog(t *testing.T) {
	url := startServer(t, broker.Config{}).ClientURL()
	watcher := connect(t, bus.ConnectConfig{Server: url})
	advisories, err := watcher.SubscribeSync("$JS.EVENT.ADVISORY.STREAM.*.M")
	if err != nil {
		t.Fatal(err)
	}
	if err := watcher.Flush(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	found := map[string]int{}
	for range 8 {
		conn := connect(t, bus.ConnectConfig{Server: url})
		all.Go(func() {
			log, err := bus.OpenLog(t.Context(), conn, logConfig())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			found[string(log.Genesis())]++
		})
	}
	all.Wait()
	if len(found) != 1 {
		t.Errorf("%d logs: %v", len(found), found)
	}
	if _, err := watcher.Request("$JS.API.STREAM.DELETE.M", nil, patience); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for len(seen) == 0 || seen[len(seen)-1] != "DELETED" {
		msg, err := advisories.NextMsg(patience)
		if err != nil {
			t.Fatal(seen, err)
		}
		seen = append(seen, strings.Split(msg.Subject, ".")[4])
	}
	if !slices.Equal(seen, []string{"CREATED", "UPDATED", "DELETED"}) {
		t.Errorf("the stream was %v: two that update it at once make the server store every message twice", seen)
	}
}

// TestOpenLogGoesOnAfterACrash stops a creation after each of its steps.
func TestOpenLogGoesOnAfterACrash(t *testing.T) {
	conn := newConn(t)
	js, err := jetstream.New(conn.Conn)
	if err != nil {
		t.Fatal(err)
	}
	complete := func(model string) {
		t.Helper()
		config := logConfig()
		config.Model = model
		log, err := bus.OpenLog(t.Context(), conn, config)
		if err != nil {
			t.Fatal(err)
		}
		if ack, err := log.Append(t.Context(), model+".learn", "id", nil); err != nil || ack.Seq != 2 {
			t.Errorf("%+v %v", ack, err)
		}
		if first, err := log.Message(t.Context(), 1); err != nil || first.Subject != model+".ctl.genesis" {
			t.Errorf("the first message is %+v %v", first, err)
		}
	}
	created := jetstream.StreamConfig{
		Name: "A", Subjects: []string{"a.ctl.>"}, Discard: jetstream.DiscardNew, DenyDelete: true,
	}
	if _, err := js.CreateStream(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	complete("a") // crashed once it was created
	created.Name, created.Subjects = "B", []string{"b.ctl.>"}
	if _, err := js.CreateStream(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "b.ctl.genesis", []byte("g")); err != nil {
		t.Fatal(err)
	}
	complete("b") // crashed once the genesis was there
	complete("c")
}

func TestAStreamThatCouldLoseEventsIsNoLog(t *testing.T) {
	conn := newConn(t)
	js, err := jetstream.New(conn.Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "M", Subjects: []string{"m.>"}, MaxAge: time.Hour, MaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	_, err = bus.OpenLog(t.Context(), conn, logConfig())
	var settings *bus.SettingsError
	if !errors.As(err, &settings) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"discard is DiscardOld", "max age", "max bytes", "may be deleted", "m.ctl.> is missing", "m.> is not the log's"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nhas no %q", err, want)
		}
	}
	if _, err := bus.BindLog(t.Context(), conn, bus.LogConfig{Model: "none"}); !errors.Is(err, bus.ErrNoLog) {
		t.Errorf("%v", err)
	}
}

// TestTailRecovers stops the server in the middle of a replay and starts it
// again: the tail goes on where it was. How long that took is printed.
func TestTailRecovers(t *testing.T) {
	dir := t.TempDir()
	server := startServer(t, broker.Config{StoreDir: dir})
	conn := connect(t, bus.ConnectConfig{Server: server.ClientURL()})
	log, err := bus.OpenLog(t.Context(), conn, logConfig())
	if err != nil {
		t.Fatal(err)
	}
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			if _, err := log.Append(t.Context(), "m.learn", fmt.Sprint(i), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(0, 1500)
	halfway, resume := make(chan struct{}), make(chan struct{})
	arrived := make(chan time.Time, 1)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		next, last := uint64(1), ""
		position := bus.Position{Check: func(msg *bus.Message) bool { return string(msg.Data) == last }}
		ended <- log.Tail(ctx, position, func(msg *bus.Message) error {
			if msg.Seq != next {
				return fmt.Errorf("%d came, and not %d", msg.Seq, next)
			}
			next++
			last = string(msg.Data)
			if msg.Seq == 700 {
				close(halfway)
				<-resume
			}
			if msg.Seq == 1502 {
				arrived <- time.Now()
			}
			return nil
		})
	}()
	<-halfway
	port := server.Port()
	if err := server.Shutdown(); err != nil {
		t.Fatal(err)
	}
	close(resume)
	startServer(t, broker.Config{StoreDir: dir, Port: port})
	began := time.Now()
	publish(1500, 1501)
	select {
	case at := <-arrived:
		t.Logf("the tail went on %s after the server was back", at.Sub(began).Round(time.Millisecond))
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(patience):
		t.Fatal("the tail does not go on")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestPublisher: everything is acknowledged, in order, across a reconnect.
func TestPublisher(t *testing.T) {
	conn := newConn(t)
	log, err := bus.OpenLog(t.Context(), conn, logConfig())
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	var tags []int
	p := log.Publisher(t.Context(), "m.learn", func(tag int, ack bus.Ack, _ error) {
		if ack.Duplicate {
			t.Errorf("message %d is a duplicate", tag)
		}
		tags = append(tags, tag)
	})
	for i := range n {
		if i == n/2 {
			if err := conn.ForceReconnect(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Publish(fmt.Sprint(i), fmt.Append(nil, i), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, last, err := log.End(t.Context()); err != nil || last != n+1 || len(tags) != n || !slices.IsSorted(tags) {
		t.Errorf("%d acknowledged, the log ends at %d: %v", len(tags), last, err)
	}
	bad := log.Publisher(t.Context(), "m.learn", func(int, bus.Ack, error) {})
	_ = bad.Publish("big", make([]byte, bus.MaxMessage+1), 0)
	if err := bad.Close(); err == nil {
		t.Error("a message that is too big is taken")
	}
}

// served is an endpoint under test, and a client that counts its answers.
type served struct {
	bus.Service
	t       *testing.T
	client  *bus.Conn
	doors   *bus.Conn
	answers chan *nats.Msg
}

// serve opens an endpoint and sends it requests, numbered from 0.
func serve(t *testing.T, requests int, handler func(bus.Request)) *served {
	t.Helper()
	url := startServer(t, broker.Config{}).ClientURL()
	s := &served{
		t: t, client: connect(t, bus.ConnectConfig{Server: url}),
		doors: connect(t, bus.ConnectConfig{Server: url}), answers: make(chan *nats.Msg, 2*requests),
	}
	var err error
	s.Service, err = bus.Serve(s.doors, bus.ServiceConfig{Name: "s", Version: "1.0.0", Endpoints: []bus.Endpoint{{
		Name: "e", Subject: "s.e", Queue: "q", Handler: handler,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	inbox := s.client.NewInbox()
	if _, err := s.client.ChanSubscribe(inbox, s.answers); err != nil {
		t.Fatal(err)
	}
	for i := range requests {
		if err := s.client.PublishRequest("s.e", inbox, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.client.Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

// stopped stops the service, closes its connection, and wants an answer to
// each request that reached it, and one only.
func (s *served) stopped(requests int) {
	s.t.Helper()
	if err := s.Stop(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.doors.Close()
	if err := s.client.Flush(); err != nil {
		s.t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(seen) < requests {
		select {
		case a := <-s.answers:
			if seen[string(a.Data)] || len(a.Header) > 0 {
				s.t.Fatalf("answered twice: %s %v", a.Data, a.Header)
			}
			seen[string(a.Data)] = true
		case <-time.After(patience):
			s.t.Fatalf("%d of %d answered", len(seen), requests)
		}
	}
	if _, err := bus.Ask(s.t.Context(), s.client, "s.e", nil, nil); !errors.Is(err, bus.ErrNobody) {
		s.t.Errorf("after the stop: %v", err)
	}
}

// TestServiceAnswersLaterBeforeItStops: handlers that answer from elsewhere.
func TestServiceAnswersLaterBeforeItStops(t *testing.T) {
	const requests = 300
	release := make(chan struct{})
	s := serve(t, requests, func(r bus.Request) {
		r.Keep()
		go func() {
			<-release
			r.Reply(r.Data())
			r.Error(500, "twice", nil)
		}()
	})
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Stop(short); err == nil {
		t.Error("it stopped with requests unanswered")
	}
	close(release)
	s.stopped(requests)
}

// TestServiceAnswersTheQueueBeforeItStops: requests that no handler has seen
// yet, for each holds up the next.
func TestServiceAnswersTheQueueBeforeItStops(t *testing.T) {
	const requests = 300
	turn := make(chan struct{})
	s := serve(t, requests, func(r bus.Request) {
		<-turn
		r.Reply(r.Data())
	})
	go func() {
		for range requests {
			turn <- struct{}{}
			runtime.Gosched() // between two requests nothing is in flight
		}
	}()
	s.stopped(requests)
}

func TestRemoteError(t *testing.T) {
	url := startServer(t, broker.Config{}).ClientURL()
	conn, doors := connect(
		t, bus.ConnectConfig{Server: url},
	), bus.Doors{
		Conn: connect(t, bus.ConnectConfig{Server: url}),
	}
	service, err := doors.Open(bus.ServiceConfig{Name: "s", Version: "1.0.0", Endpoints: []bus.Endpoint{{
		Name: "e", Subject: "s.e", Handler: func(r bus.Request) { r.Error(422, "bad "+r.Header("X"), bus.ErrorBody(422, "bad", []int{1})) },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = bus.Ask(t.Context(), conn, "s.e", nil, nats.Header{"X": {"one"}})
	var remote *bus.RemoteError
	if !errors.As(err, &remote) || remote.Code != 422 || remote.Description != "bad one" ||
		string(remote.Body) != `{"error":{"code":422,"description":"bad"},"detail":[1]}` {
		t.Errorf("%v %+v", err, remote)
	}
	if err := service.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCounterCountsOnce(t *testing.T) {
	url := startServer(t, broker.Config{}).ClientURL()
	open := func() *bus.Counter {
		c, err := bus.OpenCounter(t.Context(), connect(t, bus.ConnectConfig{Server: url}), "C", "c.n", 1)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := open(), open()
	if v, err := a.Value(t.Context()); v != 0 || err != nil {
		t.Fatalf("at first %d %v", v, err)
	}
	for _, step := range []struct {
		counter *bus.Counter
		id      string
		n, want int64
	}{{a, "a1", 5, 5}, {b, "b1", 7, 12}, {a, "a1", 5, 12}, {b, "a1", 5, 12}, {a, "a2", 1, 13}} {
		if v, err := step.counter.Add(t.Context(), step.id, step.n); v != step.want || err != nil {
			t.Errorf("%s: %d %v, want %d", step.id, v, err, step.want)
		}
	}
	if v, err := b.Value(t.Context()); v != 13 || err != nil {
		t.Errorf("%d %v", v, err)
	}
}

func TestNotesKeepTheFirst(t *testing.T) {
	conn := newConn(t)
	n, err := bus.OpenNotes(t.Context(), conn, "N", "n.>", 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false} {
		if stored, err := n.Put(t.Context(), "n.a", []byte("x")); stored != want || err != nil {
			t.Errorf("put %d: %v %v", i, stored, err)
		}
	}
	if stored, err := n.Put(t.Context(), "n.b", nil); !stored || err != nil {
		t.Errorf("another subject: %v %v", stored, err)
	}
}

// TestConnectAsTheNatsCLIDoes: flags, then the environment, then the context.
func TestConnectAsTheNatsCLIDoes(t *testing.T) {
	url := startServer(t, broker.Config{}).ClientURL()
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	dir := filepath.Join(home, "nats", "context")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "here.json"), []byte(`{"url":"`+url+`","inbox_prefix":"_MINE"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	nc := connect(t, bus.ConnectConfig{Context: "here"})
	if inbox := nc.NewInbox(); nc.ConnectedUrl() != url || !strings.HasPrefix(inbox, "_MINE.") {
		t.Errorf("%s %s", nc.ConnectedUrl(), inbox)
	}
	if _, err := bus.Connect(t.Context(), bus.ConnectConfig{Context: "there"}); err == nil ||
		!strings.Contains(err.Error(), "known are here") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(home, "nats", "context.txt"), []byte("here"), 0o600); err != nil {
		t.Fatal(err)
	}
	if nc := connect(t, bus.ConnectConfig{}); nc.ConnectedUrl() != url {
		t.Errorf("the selected context leads to %s", nc.ConnectedUrl())
	}
	t.Setenv("NATS_URL", "nats://127.0.0.1:1")
	if _, err := bus.Connect(t.Context(), bus.ConnectConfig{}); err == nil ||
		!strings.Contains(err.Error(), "nats://127.0.0.1:1") {
		t.Errorf("the environment is passed over: %v", err)
	}
	if nc := connect(t, bus.ConnectConfig{Server: url}); nc.ConnectedUrl() != url {
		t.Errorf("the flag leads to %s", nc.ConnectedUrl())
	}
}

// TestAMissingRightIsNamed runs a server whose user may do little.
func TestAMissingRightIsNamed(t *testing.T) {
	url := startServer(t, broker.Config{Denied: []string{"$JS.API.STREAM.>", "m.learn", "s.e"}}).ClientURL()
	conn := connect(t, bus.ConnectConfig{Server: url})
	began := time.Now()
	_, err := bus.OpenLog(t.Context(), conn, logConfig())
	var denied *bus.PermissionError
	if !errors.As(err, &denied) || denied.Subject != "$JS.API.STREAM.INFO.M" ||
		!strings.EqualFold(denied.Operation, "publish") {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	_, err = bus.Serve(
		conn,
		bus.ServiceConfig{
			Name: "s", Version: "1.0.0",
			Endpoints: []bus.Endpoint{{Name: "e", Subject: "s.e", Handler: func(bus.Request) {}}},
		},
	)
	if !errors.As(err, &denied) || denied.Subject != "s.e" {
		t.Errorf("%v", err)
	}
}
