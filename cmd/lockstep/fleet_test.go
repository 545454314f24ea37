package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/worker/fleet"
)

// server starts a nats-server for a test.
func server(t *testing.T) string {
	t.Helper()
	s, err := broker.Start(t.Context(), broker.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s.ClientURL()
}

func connectTo(t *testing.T, url string) *bus.Conn {
	t.Helper()
	nc, err := bus.Connect(t.Context(), bus.ConnectConfig{Server: url, Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// startWorkers starts worker processes and waits until each is ready.
func startWorkers(t *testing.T, url string, names ...string) []*process {
	t.Helper()
	var out []*process
	for _, name := range names {
		p, _, err := startProcess(
			t.TempDir(), append(os.Environ(), "HOME="+t.TempDir()), `"state":"ready"`, "lockstep", "worker", "-s",
			url, "--name", name,
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.stop(syscall.SIGKILL) })
		out = append(out, p)
	}
	return out
}

// awaitFleet waits until n workers are at a sequence and agree on what the
// fleet predicted.
func awaitFleet(t *testing.T, nc *bus.Conn, n int, seq uint64, predicted int64) []fleet.Status {
	t.Helper()
	return await(t, nc, n, predicted, fmt.Sprint("at ", seq), func(s *fleet.Status) bool { return s.Seq == seq })
}

// awaitLearned waits until n workers have learned as many events, in however
// many messages, and agree on what the fleet predicted.
func awaitLearned(t *testing.T, nc *bus.Conn, n int, learned uint64, predicted int64) []fleet.Status {
	t.Helper()
	return await(
		t, nc, n, predicted, fmt.Sprint("with ", learned, " learned"),
		func(s *fleet.Status) bool { return s.Learned == learned },
	)
}

func await(
	t *testing.T, nc *bus.Conn, n int, predicted int64, what string,
	is func(*fleet.Status) bool,
) []fleet.Status {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		replicas, err := fleetStatus(t.Context(), nc, "penguins", 200*time.Millisecond)
		done := err == nil && len(replicas) == n
		for i := range replicas {
			done = done && is(&replicas[i]) && replicas[i].Predicted == predicted
		}
		if done {
			return replicas
		}
		if time.Now().After(deadline) {
			t.Fatalf("the fleet is not %d workers %s and %d predicted: %v %+v", n, what, predicted, err, replicas)
		}
	}
}

// TestConcurrentTeaching is what the app that Lockstep replaces cannot do:
// many clients teach many workers at once, and every worker has learned all.
func TestConcurrentTeaching(t *testing.T) {
	const workers, connections, teaches = 4, 16, 2000
	url := server(t)
	startWorkers(t, url, "w1", "w2", "w3", "w4")

	rows := penguinEvents(t)
	errs := make(chan error, connections)
	var clients sync.WaitGroup
	for c := range connections {
		nc := connectTo(t, url)
		clients.Go(func() {
			for i := c; i < teaches; i += connections {
				if err := teachOne(t.Context(), nc, rows[i%len(rows)]); err != nil {
					errs <- fmt.Errorf("teach %d: %w", i, err)
					return
				}
			}
		})
	}
	clients.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	began := time.Now()
	replicas := awaitLearned(t, connectTo(t, url), workers, teaches, teaches)
	t.Logf(
		"%d workers agree on %d learned and %d predicted, %s after the last answer", workers, teaches, teaches,
		time.Since(began).Round(time.Millisecond),
	)
	for _, s := range replicas {
		if s.Learned != teaches || s.Digest != replicas[0].Digest || s.Rejected+s.Duplicates != 0 {
			t.Errorf(
				"%s learned %d, rejected %d, repeated %d, digest %s", s.Replica, s.Learned, s.Rejected,
				s.Duplicates, s.Digest,
			)
		}
	}
}

// teachOne predicts and teaches one event.
func teachOne(ctx context.Context, nc *bus.Conn, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var event struct {
		Attributes json.RawMessage `json:"attributes"`
	}
	if err := json.Unmarshal(data, &event); err != nil {
		return err
	}
	if _, err := bus.Ask(ctx, nc, "penguins.predict", event.Attributes, nats.Header{}); err != nil {
		return err
	}
	_, err := bus.Ask(ctx, nc, "penguins.teach", data, nats.Header{"Lockstep-Timeout": {"20s"}})
	return err
}

func penguinEvents(t *testing.T) (rows [][]byte) {
	t.Helper()
	rows, err := penguinRows()
	if len(rows) != 344 {
		t.Fatalf("%d penguins: %v", len(rows), err)
	}
	return rows
}

// TestLearnWithoutWorkers: the stream owns the subject, so an event that is
// published while no worker runs is learned by every worker started later.
func TestLearnWithoutWorkers(t *testing.T) {
	url := server(t)
	first := startWorkers(t, url, "first")[0]
	if err := first.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	nc := connectTo(t, url)
	if err := nc.Publish("penguins.learn", penguinEvents(t)[0]); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	startWorkers(t, url, "a", "b")
	for _, s := range awaitFleet(t, nc, 2, 2, 0) {
		if s.Learned != 1 {
			t.Errorf("%s learned %d", s.Replica, s.Learned)
		}
	}
}

// TestWorkerWaitsForServer: a worker that is started before its server says
// that it waits, and joins once the server is there.
func TestWorkerWaitsForServer(t *testing.T) {
	store := t.TempDir()
	s, err := broker.Start(t.Context(), broker.Config{StoreDir: store})
	if err != nil {
		t.Fatal(err)
	}
	url, port := s.ClientURL(), s.Port()
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	p, _, err := startProcess(
		t.TempDir(), os.Environ(), "waiting for a NATS server", "lockstep", "worker", "-s", url, "--name",
		"early",
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(syscall.SIGKILL) })
	if s, err = broker.Start(t.Context(), broker.Config{StoreDir: store, Port: port}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown() })
	awaitFleet(t, connectTo(t, url), 1, 1, 0)
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Errorf("%v\n%s", err, p.output())
	}
}

// TestWorkerStopsWhileItWaits: SIGTERM ends a worker that never had a server.
func TestWorkerStopsWhileItWaits(t *testing.T) {
	p, _, err := startProcess(
		t.TempDir(), os.Environ(), "waiting for a NATS server", "lockstep", "worker", "-s", "nats://127.0.0.1:1",
		"--name", "early",
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Errorf("%v\n%s", err, p.output())
	}
}

// TestDrain: SIGTERM leaves no accepted request unanswered.
func TestDrain(t *testing.T) {
	url := server(t)
	p := startWorkers(t, url, "w")[0]
	nc := connectTo(t, url)
	inbox := nc.NewInbox()
	answers := make(chan *nats.Msg, 1000)
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	const requests = 500
	data := penguinEvents(t)[0]
	for range requests {
		if err := nc.PublishRequest("penguins.teach", inbox, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil { // the server has passed them on
		t.Fatal(err)
	}
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Fatalf("%v\n%s", err, p.output())
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range requests {
		select {
		case <-answers:
		case <-time.After(patience):
			t.Fatalf("%d of %d answered", i, requests)
		}
	}
}
