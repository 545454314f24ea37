package serve

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"
)

// Counter is a number that the whole fleet adds to.
type Counter interface {
	// Add adds n under an id and returns the new total. A repeat of the id
	// adds nothing.
	Add(ctx context.Context, id string, n int64) (total int64, err error)
	// Value is the present total.
	Value(ctx context.Context) (int64, error)
}

const (
	countFlushEvery = 100 * time.Millisecond
	countReadEvery  = 250 * time.Millisecond
	countFlushLimit = 10 * time.Second // well within the counter stream's duplicate window
)

// predicted counts the fleet's predictions. Each worker adds its own in
// batches, each under an id of its own, so that none counts twice; a crash
// loses at most the batch that was not yet added.
type predicted struct {
	counter Counter
	boot    string // a nonce: tells this process's batches from any other's
	log     *slog.Logger

	mu      sync.Mutex
	total   int64 // the fleet's, as last heard; guarded by mu
	pending int64 // counted here and not in total; guarded by mu
	shown   int64 // the highest number that was shown; guarded by mu
	batches int   // guarded by mu
	lost    int64 // given up; guarded by mu
}

// add counts one prediction and returns the fleet's number.
func (p *predicted) add() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending++
	return p.show()
}

// value is the fleet's number as this worker knows it.
func (p *predicted) value() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.show()
}

// show returns the fleet's number, which never falls while the process lives:
// what was shown stays shown when predictions are given up, when a server that
// lags behind answers, or when the counter was restored from a backup. It
// stays where it is until the total has caught up. The caller holds mu.
func (p *predicted) show() int64 {
	sum := p.total + p.pending
	if sum < p.total { // somebody has pushed the total to where numbers end
		sum = math.MaxInt64
	}
	p.shown = max(p.shown, sum)
	return p.shown
}

// given is how many predictions were given up on, and are in no total.
func (p *predicted) given() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// run keeps adding and reading until ctx is done, and then adds what is left.
func (p *predicted) run(ctx context.Context) {
	flush := time.NewTicker(countFlushEvery)
	defer flush.Stop()
	var read time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			p.flush(last)
			return
		case now := <-flush.C:
			if !p.flush(ctx) && now.Sub(read) >= countReadEvery {
				p.read(ctx)
				read = now
			}
		}
	}
}

// flush adds what was counted since the last one; false if there was nothing.
func (p *predicted) flush(ctx context.Context) bool {
	p.mu.Lock()
	n := p.pending
	if n == 0 {
		p.mu.Unlock()
		return false
	}
	p.batches++
	id := fmt.Sprintf("%s-%d", p.boot, p.batches)
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, countFlushLimit)
	defer cancel()
	total, err := p.counter.Add(ctx, id, n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending -= n
	if err != nil {
		p.lost += n
		p.log.Warn("predictions could not be counted", "count", n, "error", err)
		return true
	}
	p.total = max(p.total, total)
	return true
}

func (p *predicted) read(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	total, err := p.counter.Value(ctx)
	if err != nil {
		return // the next one will tell; a number that is late is no fault
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = total
}
