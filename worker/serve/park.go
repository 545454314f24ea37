package serve

import (
	"container/heap"
	"errors"
	"sync"
	"time"
)

var (
	// errParkFull: as many requests wait for a sequence as a worker holds.
	errParkFull = errors.New("too many requests wait for their sequence")
	// errParkClosed: the worker stops, leaves the group or replays from the start.
	errParkClosed = errors.New("the worker leaves the group")
	// errParkTimeout: the sequence was not applied in time.
	errParkTimeout = errors.New("the sequence was not applied in time")
)

// parking holds the requests that wait for a sequence: an endpoint runs one
// handler at a time, so a handler never waits itself. Each is ended exactly
// once: by the fold, by its time-out, or when the parking is closed.
type parking struct {
	limit, limitBytes int

	mu      sync.Mutex
	bytes   int        // of all waiters; guarded by mu
	applied uint64     // guarded by mu
	closed  bool       // guarded by mu
	waiters waiterHeap // guarded by mu
}

// waiter is one parked request.
type waiter struct {
	seq   uint64
	size  int         // what it keeps in memory, in bytes
	done  func(error) // nil: the sequence was applied
	timer *time.Timer
	place int // in the heap, -1 once ended; guarded by parking.mu
}

// park calls done once: with nil when seq has been applied (at once if it
// was already), or with errParkTimeout or errParkClosed. It returns
// errParkFull or errParkClosed, and never calls done, if there is no place.
func (p *parking) park(seq uint64, size int, timeout time.Duration, done func(error)) error {
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return errParkClosed
	case seq <= p.applied:
		p.mu.Unlock()
		done(nil)
		return nil
	case len(p.waiters) >= p.limit || p.bytes+size > p.limitBytes:
		p.mu.Unlock()
		return errParkFull
	}
	w := &waiter{seq: seq, size: size, done: done}
	p.bytes += size
	heap.Push(&p.waiters, w)
	w.timer = time.AfterFunc(timeout, func() {
		if p.remove(w) {
			done(errParkTimeout)
		}
	})
	p.mu.Unlock()
	return nil
}

func (p *parking) remove(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.place < 0 {
		return false
	}
	heap.Remove(&p.waiters, w.place)
	p.bytes -= w.size
	return true
}

// advance ends the waiters whose sequence has been applied.
func (p *parking) advance(applied uint64) {
	for _, w := range p.take(func() bool { p.applied = applied; return false }) {
		w.done(nil)
	}
}

// close ends all waiters; no one can park until open.
func (p *parking) close() {
	for _, w := range p.take(func() bool { p.closed = true; return true }) {
		w.done(errParkClosed)
	}
}

// open lets requests park again, at a state that has applied this much.
func (p *parking) open(applied uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.applied = false, applied
}

// len is how many requests wait.
func (p *parking) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiters)
}

// take removes the waiters that are due after change, or all.
func (p *parking) take(change func() (all bool)) []*waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := change()
	var due []*waiter
	for len(p.waiters) > 0 && (all || p.waiters[0].seq <= p.applied) {
		w := heap.Pop(&p.waiters).(*waiter)
		w.timer.Stop()
		p.bytes -= w.size
		due = append(due, w)
	}
	return due
}

// waiterHeap orders waiters by their sequence.
type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].seq < h[j].seq }
func (h waiterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *waiterHeap) Push(x any) {
	w := x.(*waiter)
	w.place = len(*h)
	*h = append(*h, w)
}

func (h *waiterHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.place = -1
	return w
}
