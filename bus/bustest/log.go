// Package bustest is the log's stand-in for tests: one in memory, whose
// faults follow from a seed, and the suite that it and the real log pass.
package bustest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"lockstep/bus"
)

// Log is a log in memory. Like the real one it stores a message once per id,
// numbers messages from 1, and delivers them in order and without a hole. Its
// faults follow from its seed: acknowledgements that get lost, so that an
// append is retried and meets its own duplicate, and tails that start anew.
type Log struct {
	model string

	mu       sync.Mutex
	random   *rand.Rand        // guarded by mu
	first    uint64            // sequence of messages[0]; guarded by mu
	messages []bus.Message     // guarded by mu
	ids      map[string]uint64 // guarded by mu
	changed  chan struct{}     // closed at each change; guarded by mu
	faults   Faults            // guarded by mu
}

// Faults counts what went wrong on purpose.
type Faults struct {
	LostAcks int // appends that were stored, and not acknowledged the first time
	Restarts int // tails that started anew
}

// NewLog makes a log that holds its genesis alone.
func NewLog(model string, seed uint64, genesis []byte) *Log {
	l := &Log{model: model, random: rand.New(rand.NewPCG(seed, 0)), first: 1, ids: map[string]uint64{}, changed: make(chan struct{})}
	l.store(model+".ctl.genesis", "genesis", genesis)
	return l
}

// Faults is what went wrong so far.
func (l *Log) Faults() Faults {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults
}

func (l *Log) end() uint64 { return l.first + uint64(len(l.messages)) - 1 }

// store appends; the caller holds mu, or nobody knows the log yet.
func (l *Log) store(subject, id string, data []byte) uint64 {
	seq := l.end() + 1
	l.messages = append(l.messages, bus.Message{Seq: seq, Subject: subject, ID: id, Data: append([]byte(nil), data...), Time: time.Now()})
	if id != "" {
		l.ids[id] = seq
	}
	l.wake()
	return seq
}

func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Append is as bus.Log's.
func (l *Log) Append(ctx context.Context, subject, id string, data []byte) (bus.Ack, error) {
	if err := ctx.Err(); err != nil {
		return bus.Ack{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq, known := l.ids[id]; known && id != "" {
		return bus.Ack{Seq: seq, Duplicate: true}, nil
	}
	seq := l.store(subject, id, data)
	if l.random.IntN(8) == 0 {
		// The acknowledgement is lost. The retry finds the id, and knows
		// that it is its own.
		l.faults.LostAcks++
		seq = l.ids[id]
	}
	return bus.Ack{Seq: seq}, nil
}

// End is as bus.Log's.
func (l *Log) End(ctx context.Context) (first, last uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, l.end(), ctx.Err()
}

// Message is as bus.Log's.
func (l *Log) Message(ctx context.Context, seq uint64) (*bus.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq < l.first || seq > l.end() {
		return nil, bus.ErrNoMessage
	}
	msg := l.messages[seq-l.first]
	return &msg, ctx.Err()
}

// Tail is as bus.Log's.
func (l *Log) Tail(ctx context.Context, from bus.Position, deliver func(*bus.Message) error) error {
	for {
		err := l.run(ctx, &from, deliver)
		if !errors.Is(err, errRestart) {
			return err
		}
	}
}

var errRestart = errors.New("the tail starts anew")

// run delivers until the tail is to start anew.
func (l *Log) run(ctx context.Context, from *bus.Position, deliver func(*bus.Message) error) error {
	next := max(from.Applied, 1)
	if from.Applied > 0 {
		if err := l.check(from); err != nil {
			return err
		}
		next++
	}
	for {
		msg, changed, err := l.next(next)
		switch {
		case err != nil:
			return err
		case msg == nil:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err := deliver(msg); err != nil {
			return err
		}
		from.Applied = msg.Seq
		next++
	}
}

// check compares the message applied last with the log's.
func (l *Log) check(from *bus.Position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case from.Applied > l.end():
		return &bus.RolledBackError{Applied: from.Applied, End: l.end()}
	case from.Applied < l.first:
		return &bus.GapError{Want: from.Applied, Got: l.first}
	}
	msg := l.messages[from.Applied-l.first]
	if !from.Check(&msg) {
		return &bus.RolledBackError{Applied: from.Applied}
	}
	return nil
}

// next returns the message at a sequence, or a channel that closes when there
// may be one.
func (l *Log) next(seq uint64) (*bus.Message, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case seq < l.first:
		return nil, nil, &bus.GapError{Want: seq, Got: l.first}
	case l.random.IntN(16) == 0, seq > l.end()+1:
		l.faults.Restarts++
		return nil, nil, errRestart
	case seq > l.end():
		return nil, l.changed, nil
	}
	msg := l.messages[seq-l.first]
	msg.Pending = l.end() - seq
	return &msg, nil, nil
}

// Purge deletes the messages below a sequence.
func (l *Log) Purge(below uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(below, l.end()+1) - l.first
	l.messages, l.first = l.messages[n:], l.first+n
	l.wake()
}

// RollBack takes the log back to a sequence, as restoring an older copy does.
func (l *Log) RollBack(to uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, msg := range l.messages[to+1-l.first:] {
		delete(l.ids, msg.ID)
	}
	l.messages = l.messages[:to+1-l.first]
	l.wake()
}
