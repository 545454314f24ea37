package bustest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"lockstep/bus"
)

// ErrDead is what a party gets that has crashed: nothing it does has any
// effect, and nothing reaches it.
var ErrDead = errors.New("this process is dead")

// Way is one party's way to what it stands on: its log, its boards, its
// blobs. It can be cut and mended, and it ends when the party crashes. Small
// faults happen on it by themselves, from its seed: requests that get lost,
// and requests that are done while their answers get lost.
type Way struct {
	mu      sync.Mutex
	random  *rand.Rand    // guarded by mu
	lossy   int           // one call in so many loses its request, and one its answer; 0 none; guarded by mu
	cut     bool          // guarded by mu
	dead    bool          // guarded by mu
	changed chan struct{} // closed at each change; guarded by mu
	faults  WayFaults     // guarded by mu
}

// WayFaults counts what went wrong on a way.
type WayFaults struct {
	LostRequests int // nothing was done
	LostAnswers  int // it was done, and no one heard
	Delays       int
}

// NewWay makes a way. One call in lossy loses its request, and one its answer;
// 0: none does.
func NewWay(seed uint64, lossy int) *Way {
	return &Way{random: rand.New(rand.NewPCG(seed, 1)), lossy: lossy, changed: make(chan struct{})}
}

// Faults is what went wrong so far.
func (w *Way) Faults() WayFaults {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults
}

// Cut cuts the way, or fixes it.
func (w *Way) Cut(cut bool) { w.change(func() { w.cut = cut }) }

// Lossy changes how often a call is lost.
func (w *Way) Lossy(lossy int) { w.change(func() { w.lossy = lossy }) }

// Kill ends the way for good.
func (w *Way) Kill() { w.change(func() { w.dead = true }) }

func (w *Way) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// state tells how the way is, and returns a channel that closes when that
// changes.
func (w *Way) state() (open, dead bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.cut && !w.dead, w.dead, w.changed
}

// fate is what becomes of one call.
func (w *Way) fate() (lostRequest, lostAnswer bool, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lossy == 0 {
		return false, false, 0
	}
	switch w.random.IntN(w.lossy) {
	case 0:
		w.faults.LostRequests++
		return true, false, 0
	case 1:
		w.faults.LostAnswers++
		return false, true, 0
	}
	if w.random.IntN(8) == 0 {
		w.faults.Delays++
		delay = time.Duration(1+w.random.IntN(30)) * time.Millisecond
	}
	return false, false, delay
}

// call does something over the way, as far as that lets it. A call without an
// answer takes its whole time-out.
func (w *Way) call(ctx context.Context, timeout time.Duration, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	open, dead, changed := w.state()
	if dead {
		return ErrDead
	}
	lostRequest, lostAnswer, delay := w.fate()
	if !open || lostRequest {
		return w.silence(ctx, timeout, changed)
	}
	if delay > 0 && !Sleep(ctx, delay) {
		return ctx.Err()
	}
	if open, dead, changed = w.state(); dead {
		return ErrDead
	} else if !open {
		return w.silence(ctx, timeout, changed)
	}
	err := do()
	if lostAnswer {
		return w.silence(ctx, timeout, changed)
	}
	return err
}

// silence waits for an answer that does not come.
func (w *Way) silence(ctx context.Context, timeout time.Duration, changed <-chan struct{}) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return context.DeadlineExceeded
		case <-changed:
			var dead bool
			if _, dead, changed = w.state(); dead {
				return ErrDead
			}
		}
	}
}

// Sleep waits, and returns false if ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Board is a board in memory, as all its users see it together.
type Board struct {
	ttl time.Duration

	mu     sync.Mutex
	keys   []string             // sorted; guarded by mu
	values map[string]boardItem // guarded by mu
}

type boardItem struct {
	value []byte
	at    time.Time
}

// NewBoard makes a board whose entries vanish after a time, or never if that
// is 0.
func NewBoard(ttl time.Duration) *Board { return &Board{ttl: ttl, values: map[string]boardItem{}} }

// Put is as bus.Board's.
func (b *Board) Put(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(key, value)
	return nil
}

func (b *Board) put(key string, value []byte) {
	if i, found := slices.BinarySearch(b.keys, key); !found {
		b.keys = slices.Insert(b.keys, i, key)
	}
	b.values[key] = boardItem{value, time.Now()}
}

// Create is as bus.Board's.
func (b *Board) Create(_ context.Context, key string, value []byte) (created bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if item, found := b.values[key]; found && b.lives(item) {
		return false, nil
	}
	b.put(key, value)
	return true, nil
}

func (b *Board) lives(item boardItem) bool { return b.ttl == 0 || time.Since(item.at) < b.ttl }

// below returns where the entries below a key stand.
func (b *Board) below(key string) (from, to int) {
	from, _ = slices.BinarySearch(b.keys, key+".")
	to = from
	for to < len(b.keys) && strings.HasPrefix(b.keys[to], key+".") {
		to++
	}
	return from, to
}

// Remove is as bus.Board's.
func (b *Board) Remove(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	from, to := b.below(key)
	for _, k := range b.keys[from:to] {
		delete(b.values, k)
	}
	b.keys = slices.Delete(b.keys, from, to)
	if i, found := slices.BinarySearch(b.keys, key); found {
		delete(b.values, key)
		b.keys = slices.Delete(b.keys, i, i+1)
	}
	return nil
}

// maxList is the most entries that a list has.
const maxList = 1024

// List is as bus.Board's.
func (b *Board) List(_ context.Context, key string) (out []bus.Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from, to := b.below(key)
	for _, k := range b.keys[from:to] {
		if item := b.values[k]; b.lives(item) && len(out) < maxList {
			out = append(out, bus.Entry{Key: k, Value: item.value})
		}
	}
	return out, nil
}

// boardTimeout is how long a call of a board waits for its answer.
const boardTimeout = 2 * time.Second

// BoardUser is a board as one party sees it, over its way.
type BoardUser struct {
	board *Board
	way   *Way
}

// By is the board over a way.
func (b *Board) By(way *Way) *BoardUser { return &BoardUser{b, way} }

// Put is as bus.Board's.
func (u *BoardUser) Put(ctx context.Context, key string, value []byte) error {
	return u.way.call(ctx, boardTimeout, func() error { return u.board.Put(ctx, key, value) })
}

// Create is as bus.Board's.
func (u *BoardUser) Create(ctx context.Context, key string, value []byte) (created bool, err error) {
	err = u.way.call(ctx, boardTimeout, func() error { created, err = u.board.Create(ctx, key, value); return err })
	return created && err == nil, err
}

// Remove is as bus.Board's.
func (u *BoardUser) Remove(ctx context.Context, key string) error {
	return u.way.call(ctx, boardTimeout, func() error { return u.board.Remove(ctx, key) })
}

// List is as bus.Board's.
func (u *BoardUser) List(ctx context.Context, key string) (out []bus.Entry, err error) {
	err = u.way.call(ctx, boardTimeout, func() error { out, err = u.board.List(ctx, key); return err })
	if err != nil {
		return nil, err
	}
	return out, nil
}
