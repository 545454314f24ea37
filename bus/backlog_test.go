package bus

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"lockstep/bus/broker"
)

// TestBacklog: what arrived and was not taken waits, but for what somebody
// else takes; that shows whenever the handlers were idle.
func TestBacklog(t *testing.T) {
	var arrived uint64
	var now time.Duration
	b := &backlog{arrived: func() uint64 { return arrived }, clock: func() time.Duration { return now }}
	handle := func() int64 { defer b.end(); return b.begin() }
	for _, step := range []struct {
		arrive uint64
		after  time.Duration
		want   int64
	}{
		{1, time.Second, 0},
		{10, 0, 9},
		{0, 0, 8},
		{2, 0, 9}, // two that are micro's
		{2, time.Second, 0},
		{1, 0, 0}, // what was counted as waiting is known now to be another's
		{5, 0, 4},
	} {
		arrived += step.arrive
		now += step.after
		if got := handle(); got != step.want {
			t.Errorf("%+v: %d wait", step, got)
		}
	}
	// Beside a handler that runs, no one is idle.
	b.begin()
	now += time.Second
	arrived += 3
	if got := b.begin(); got != 5 {
		t.Errorf("%d wait", got)
	}
}

// TestAFloodIsRefusedWithAReason: every request of a flood is answered, some
// of them by a 503, and the service stops cleanly.
func TestAFloodIsRefusedWithAReason(t *testing.T) {
	const n = 3 * maxBacklog
	server, err := broker.Start(t.Context(), broker.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	connect := func() *Conn {
		conn, err := Connect(t.Context(), ConnectConfig{Server: server.ClientURL()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	doors, asker := connect(), connect()
	doors.backlog.clock = func() time.Duration { return 0 } // never idle: one request has arrived, or all have
	first, entered := make(chan struct{}), make(chan struct{})
	once := true
	opened, err := Serve(doors, ServiceConfig{Name: "m", Version: "1.0.0", Endpoints: []Endpoint{{
		Name: "ask", Subject: "m.ask", Queue: "q", Handler: func(r Request) {
			if once {
				once = false
				close(entered)
				<-first
			}
			r.Reply(nil)
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	inbox := asker.NewInbox()
	answers, err := asker.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := asker.PublishRequest("m.ask", inbox, nil); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-entered // before the others are there
		}
	}
	for doors.backlog.arrived() < n {
		if err := asker.FlushTimeout(apiTimeout); err != nil {
			t.Fatal(err)
		}
	}
	close(first)
	refused := 0
	for i := range n {
		msg, err := answers.NextMsg(apiTimeout)
		if err != nil {
			t.Fatalf("%d of %d are answered: %v", i, n, err)
		}
		if code := msg.Header.Get(micro.ErrorCodeHeader); code == "503" {
			refused++
		} else if code != "" {
			t.Fatal(code)
		}
	}
	if want := n - maxBacklog - 2; refused != want { // but the first, and one that has so many behind it
		t.Errorf("%d of %d are refused, want %d", refused, n, want)
	}
	if stats := opened.(*service).board.stats().(micro.Stats).Endpoints[0]; stats.NumErrors != refused || stats.NumRequests != n {
		t.Errorf("nats micro stats would show %d errors of %d requests", stats.NumErrors, stats.NumRequests)
	}
	if err := opened.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
