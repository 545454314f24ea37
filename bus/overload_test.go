package bus

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"lockstep/bus/broker"
)

// TestOverloadIsRefused: a request with as many behind it as may wait is
// handled, and one with more is refused with a reason.
func TestOverloadIsRefused(t *testing.T) {
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
	var arrived atomic.Uint64
	doors.backlog = newBacklog(arrived.Load)
	doors.backlog.clock = func() time.Duration { return 0 } // never idle
	s, err := Serve(doors, ServiceConfig{Name: "m", Version: "1.0.0", Endpoints: []Endpoint{{
		Name: "ask", Subject: "m.ask", Queue: "q", Handler: func(r Request) { r.Reply(nil) },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for taken, c := range []struct {
		waiting uint64
		refused bool
	}{{0, false}, {maxBacklog, false}, {maxBacklog + 1, true}, {maxBacklog, false}} {
		arrived.Store(uint64(taken) + 1 + c.waiting)
		_, err := Ask(t.Context(), asker, "m.ask", nil, nil)
		var remote *RemoteError
		if errors.As(err, &remote) != c.refused || !c.refused && err != nil || c.refused && remote.Code != 503 {
			t.Errorf("%d wait: %v", c.waiting, err)
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDroppedNeverFalls: what a service lost stays counted after it has ended.
func TestDroppedNeverFalls(t *testing.T) {
	server, err := broker.Start(t.Context(), broker.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	conn, err := Connect(t.Context(), ConnectConfig{Server: server.ClientURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	busy := make(chan struct{})
	sub, err := conn.Subscribe("m.ask", func(*nats.Msg) { <-busy })
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(1, -1); err != nil {
		t.Fatal(err)
	}
	for range 9 {
		if err := conn.Publish("m.ask", nil); err != nil {
			t.Fatal(err)
		}
	}
	const want = 7 // the handler has one, and one waits
	for deadline := time.Now().Add(time.Minute); conn.dropped() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got %d dropped, want %d", conn.dropped(), want)
		}
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	close(busy)
	if got := conn.dropped(); got < want {
		t.Errorf("after its end: got %d dropped, want %d", got, want)
	}
}
