//go:build e2e

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"lockstep/bus"
)

const (
	garbageConnections = 8
	garbageInFlight    = 2000    // requests that one connection has not heard of
	garbageMemory      = 1 << 30 // bytes that a worker may hold at most
)

// TestGarbage sends a worker what strangers can send, as fast as it comes: all
// of it is answered, the worker's memory stays bounded, and it works
// afterwards. LOCKSTEP_GARBAGE says for how long, as in 10m.
func TestGarbage(t *testing.T) {
	long := 15 * time.Second
	if text := os.Getenv("LOCKSTEP_GARBAGE"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	random := chance(t)
	url := server(t)
	w := startWorkers(t, url, "victim")[0]
	g := &garbage{rows: penguinEvents(t), until: time.Now().Add(long), answers: map[string]int{}}
	var all sync.WaitGroup
	for range garbageConnections {
		seed := random.Uint64()
		nc := connectTo(t, url)
		all.Go(func() {
			if err := g.throw(nc, rand.New(rand.NewPCG(seed, 0))); err != nil {
				t.Error(err)
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	early, most := 0, 0
	began := time.Now()
	for running := true; running; {
		select {
		case <-w.done:
			t.Fatalf("the worker ended: %v\n%s", w.err, w.output())
		case <-finished:
			running = false
		case <-time.After(100 * time.Millisecond):
		}
		now := residentMemory(t, w.cmd.Process.Pid)
		if most = max(most, now); time.Since(began) < long/10 {
			early = most
		}
	}
	t.Logf(
		"%s of garbage from %d connections: %d requests, %d never answered, %d appended to the log; answers %v",
		long, garbageConnections, g.sent.Load(), g.lost.Load(), g.appended.Load(), g.answers,
	)
	t.Logf(
		"the worker held %d MiB at most, in the first tenth of the time %d MiB, at the end %d MiB", most>>20,
		early>>20, residentMemory(t, w.cmd.Process.Pid)>>20,
	)
	if most > garbageMemory {
		t.Errorf("the worker held %d bytes", most)
	}
	nc := connectTo(t, url)
	for _, row := range g.rows {
		if err := teachOne(t.Context(), nc, row); err != nil {
			t.Fatalf("afterwards: %v", err)
		}
	}
	fleet, err := fleetStatus(t.Context(), nc, "penguins", time.Second)
	if err != nil || len(fleet) != 1 {
		t.Fatal(fleet, err)
	}
	s := fleet[0]
	t.Logf(
		"learned %d, rejected %d, duplicates %d; %d requests dropped by the client library", s.Learned,
		s.Rejected, s.Duplicates, s.Dropped,
	)
	if g.lost.Load() > int64(s.Dropped) {
		t.Errorf("%d requests were never answered, %d are known as dropped", g.lost.Load(), s.Dropped)
	}
	if err := w.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// residentMemory is what a process holds, in bytes.
func residentMemory(t *testing.T, pid int) (kib int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(text, []byte("VmRSS:"))
	if _, err := fmt.Sscan(string(after), &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

type garbage struct {
	rows                 [][]byte
	until                time.Time
	sent, lost, appended atomic.Int64

	mu      sync.Mutex
	answers map[string]int // by code; guarded by mu
}

// throw sends garbage over one connection until the time is over, and hears
// the answers.
func (g *garbage) throw(nc *bus.Conn, r *rand.Rand) error {
	inbox := nc.NewInbox()
	room := make(chan struct{}, garbageInFlight)
	_, err := nc.Subscribe(inbox, func(msg *nats.Msg) {
		code := msg.Header.Get("Nats-Service-Error-Code")
		if code == "" {
			code = "ok"
		}
		if status := msg.Header.Get("Status"); status != "" {
			code = "status " + status
		}
		g.mu.Lock()
		g.answers[code]++
		g.mu.Unlock()
		select {
		case <-room:
		default: // it had been given up
		}
	})
	if err != nil {
		return err
	}
	for time.Now().Before(g.until) {
		msg := nats.NewMsg("penguins." + []string{"predict", "predict", "teach", "explain", "status", "learn"}[r.IntN(6)])
		msg.Data = g.body(r)
		if len(msg.Data) > 10_000 && r.IntN(20) > 0 { // large ones are slow to send: let there be others
			continue
		}
		for range r.IntN(3) {
			msg.Header.Set([]string{"Nats-Msg-Id", "Lockstep-Min-Seq", "Lockstep-Timeout", "Status"}[r.IntN(4)], g.header(r))
		}
		if strings.HasSuffix(msg.Subject, "learn") {
			if r.IntN(20) > 0 { // each is synced to the disk
				continue
			}
			g.appended.Add(1)
		}
		msg.Reply = inbox
		select {
		case room <- struct{}{}:
		case <-time.After(10 * time.Second): // all in flight are lost
			g.lost.Add(int64(len(room)))
			for len(room) > 0 {
				<-room
			}
			continue
		}
		g.sent.Add(1)
		if err := nc.PublishMsg(msg); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(patience); len(room) > 0 && time.Now().Before(deadline); {
		if err := nc.FlushTimeout(patience); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	g.lost.Add(int64(len(room)))
	return nil
}

func (g *garbage) header(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return fmt.Sprint(r.Uint64())
	case 1:
		return fmt.Sprint(r.IntN(1000))
	case 2:
		return strings.Repeat("x", r.IntN(3000))
	case 3:
		return fmt.Sprintf("%dms", r.IntN(20_000))
	case 4:
		return "-" + fmt.Sprint(r.Float64())
	}
	return fmt.Sprintf("id%d", r.IntN(100))
}

// body is something near to a row, an event or a batch, or nothing like it.
func (g *garbage) body(r *rand.Rand) []byte {
	data := bytes.Clone(g.rows[r.IntN(len(g.rows))])
	switch r.IntN(12) {
	case 0:
		data = make([]byte, r.IntN(300))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
	case 1:
		data = bytes.Repeat([]byte(`[{"a":`)[:1+r.IntN(6)], r.IntN(150_000))
	case 2:
		data = fmt.Appendf(nil, "[%s%s]", bytes.Repeat(append(data, ','), r.IntN(1200)), data)
	case 3:
		data = bytes.Replace(data, []byte(`:"`), []byte(`:"`+strings.Repeat("y", r.IntN(100_000))), 1)
	case 4: // a new value
		data = bytes.Replace(data, []byte(`:"`), fmt.Appendf(nil, `:"%x`, r.Uint32()), 1+r.IntN(2))
	case 5, 6: // the attributes alone
		from, to := bytes.IndexByte(data[1:], '{')+1, bytes.IndexByte(data, '}')+1
		data = data[from:to]
	}
	for range r.IntN(4) {
		if len(data) == 0 {
			break
		}
		i := r.IntN(len(data))
		switch r.IntN(3) {
		case 0:
			data[i] ^= 1 << r.IntN(8)
		case 1:
			data = data[:i]
		case 2:
			data = append(data[:i:i], append([]byte{`{}[]",:0-e\u`[r.IntN(12)]}, data[i:]...)...)
		}
	}
	return data
}
