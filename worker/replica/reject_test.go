package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a stream of verdicts that lets reports through once it is open.
type gate struct {
	open    chan struct{}
	refuses error

	mu     sync.Mutex
	stored int // guarded by mu
}

func (g *gate) Put(ctx context.Context, _ string, _ []byte) (bool, error) {
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-g.open:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuses != nil {
		return false, g.refuses
	}
	g.stored++
	return true, nil
}

// TestABurstOfRejectionsWaits: for a server that is slow, and as the replica
// ends; only what the stream could not hold is dropped.
func TestABurstOfRejectionsWaits(t *testing.T) {
	const burst, size = 50_000, 512
	data := []byte(strings.Repeat("x", size))
	for _, c := range []struct {
		name            string
		events          int
		refuses         error
		opens           bool
		stored, dropped int
	}{
		{"a burst", burst, nil, true, burst, 0},
		{"more than the stream takes", maxUnreported/size + 1000, nil, true, maxUnreported / size, 1000},
		{"a server that never answers", burst, nil, false, 0, burst},
		{"a stream that is full", 10, errors.New("full"), true, 0, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gate{open: make(chan struct{}), refuses: c.refuses}
				r := newRejections(g, slog.New(slog.DiscardHandler))
				for i := range c.events {
					r.push(rejection{fmt.Sprint("v.", i), data})
				}
				if c.opens {
					close(g.open)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				begun := time.Now()
				r.run(ctx)
				if took := time.Since(begun); took > lastReports {
					t.Errorf("got an end after %s, want it after %s at the latest", took, lastReports)
				}
				if g.stored != c.stored || r.dropped.Load() != uint64(c.dropped) {
					t.Errorf("got %d stored and %d dropped, want %d and %d", g.stored, r.dropped.Load(), c.stored, c.dropped)
				}
			})
		})
	}
}
