// Package bustest is the log's stand-in for tests: one in memory, whose
// faults follow from a seed, and the suite that it and the real log pass.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"lockstep/bus"
)

// Log is a log in memory. Like the real one it stores a message once per id,
// numbers messages from 1, and delivers them in order and without a hole. Its
// faults follow from its seed: acknowledgements that get lost, so that an
// append is retried and meets its own duplicate, and tails that start again.
type Log struct {
	model string

	mu       sync.Mutex
	random   *rand.Rand       // guarded by mu
	first    uint64           // sequence of messages[0]; guarded by mu
	messages []bus.Message    // guarded by mu
	cut      []bus.Message    // what was purged, from 1 on; guarded by mu
	ids      map[string]place // guarded by mu
	window   time.Duration    // how long ids are remembered, 0: for ever; guarded by mu
	changed  chan struct{}    // closed at each change; guarded by mu
	faults   Faults           // guarded by mu
	lives    int              // how often the server was stopped, and with it each consumer; guarded by mu
	largest  int              // bytes of a message; guarded by mu
	watch    Watch            // guarded by mu
}

// place is where an id is, and since when.
type place struct {
	seq uint64
	at  time.Time
}

// Watch is told of each change of a log, before anybody else can see it. It
// must not use the log.
type Watch struct {
	Stored   func(*bus.Message)       // a message was appended
	BackAt   func(left []bus.Message) // the log was rolled back; what it holds, and what was purged before
	MadeAnew func(g *bus.Message)     // another log is there, with its genesis
	Unacked  func(id string)          // a message is stored, and its acknowledgement got lost
	Refused  func(data []byte)        // a message was larger than the log takes
}

// Faults counts what went wrong on purpose.
type Faults struct {
	LostAcks int // appends that were stored, and not acknowledged the first time
	Restarts int // tails that started again
	Repeats  int // ids that were stored again, because the log had forgotten them
}

// NewLog makes a log that holds its genesis alone.
func NewLog(model string, seed uint64, genesis []byte) *Log {
	l := &Log{
		model: model, random: rand.New(rand.NewPCG(seed, 0)), first: 1, largest: bus.MaxMessage,
		ids: map[string]place{}, changed: make(chan struct{}),
	}
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

// store appends; the caller holds mu, or no one knows the log yet.
func (l *Log) store(subject, id string, data []byte) uint64 {
	seq := l.end() + 1
	l.messages = append(
		l.messages,
		bus.Message{Seq: seq, Subject: subject, ID: id, Data: append([]byte(nil), data...), Time: time.Now()},
	)
	if id != "" {
		l.ids[id] = place{seq, time.Now()}
	}
	if l.watch.Stored != nil {
		l.watch.Stored(&l.messages[len(l.messages)-1])
	}
	l.wake()
	return seq
}

// known looks an id up, as far back as ids are remembered. The caller holds
// mu.
func (l *Log) known(id string) (seq uint64, known bool) {
	first, known := l.ids[id]
	if !known || id == "" {
		return 0, false
	}
	if l.window > 0 && time.Since(first.at) > l.window {
		l.faults.Repeats++
		return 0, false
	}
	return first.seq, true
}

// Remember changes how long the log remembers ids; 0 is for ever.
func (l *Log) Remember(window time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.window = window
}

// Watch has a log's changes told, and begins with what it holds.
func (l *Log) Watch(watch Watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch = watch
	watch.MadeAnew(&l.messages[0])
	for i := range l.messages[1:] {
		watch.Stored(&l.messages[i+1])
	}
}

func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Largest changes how many bytes a message may have. No one is told: Limit is
// what it was, as after a change of the stream's settings.
func (l *Log) Largest(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.largest = n
}

// Limit is as bus.Log's.
func (l *Log) Limit() int { return bus.MaxMessage }

// Append is as bus.Log's.
func (l *Log) Append(ctx context.Context, subject, id string, data []byte, guards ...bus.Guard) (bus.Ack, error) {
	if err := ctx.Err(); err != nil {
		return bus.Ack{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ack, err := l.take(subject, id, data, guards)
	if err == nil && !ack.Duplicate && l.random.IntN(8) == 0 {
		// The acknowledgement is lost. The retry finds the id, and knows
		// that it is its own.
		l.faults.LostAcks++
		ack.Seq = l.ids[id].seq
	}
	return ack, err
}

// take is one attempt to append; the caller holds mu.
func (l *Log) take(subject, id string, data []byte, guards []bus.Guard) (bus.Ack, error) {
	if len(data) > l.largest {
		if l.watch.Refused != nil {
			l.watch.Refused(data)
		}
		return bus.Ack{}, &bus.RefusedError{
			Code: 400, ErrCode: 10054, Description: "message size exceeds maximum allowed", Err: bus.ErrTooLarge,
		}
	}
	if seq, known := l.known(id); known {
		return bus.Ack{Seq: seq, Duplicate: true}, nil
	}
	for _, g := range guards {
		if g.Header == "Nats-Expected-Last-Sequence" && g.Value != strconv.FormatUint(l.end(), 10) {
			description := fmt.Sprintf("wrong last sequence: %d", l.end())
			return bus.Ack{}, &bus.RefusedError{
				Code: 400, ErrCode: 10071, Description: description, Err: errors.New(description),
			}
		}
	}
	return bus.Ack{Seq: l.store(subject, id, data)}, nil
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

// run delivers until the tail is to start again.
func (l *Log) run(ctx context.Context, from *bus.Position, deliver func(*bus.Message) error) error {
	life, err := l.check(from)
	if err != nil {
		return err
	}
	for {
		msg, changed, err := l.next(from.Applied+1, life)
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
	}
}

// check compares the message applied last with the log's, and returns what
// next is to be told.
func (l *Log) check(from *bus.Position) (life int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case from.Applied == 0:
		return l.lives, nil
	case from.Applied > l.end(): // believed once an acknowledged event has no later place
		seq := l.store(l.model+".ctl.checkpoint", bus.NewID(), nil)
		if seq > from.Applied {
			return 0, errRestart
		}
		return 0, &bus.RolledBackError{Applied: from.Applied, End: seq - 1}
	case from.Applied < l.first:
		return 0, &bus.GapError{Want: from.Applied, Got: l.first}
	}
	msg := l.messages[from.Applied-l.first]
	if !from.Check(&msg) {
		return 0, &bus.RolledBackError{Applied: from.Applied}
	}
	return l.lives, nil
}

// next returns the message at a sequence, or a channel that closes when there
// may be one.
func (l *Log) next(seq uint64, life int) (*bus.Message, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case life != l.lives:
		return nil, nil, errRestart
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
	n := min(max(below, l.first), l.end()+1) - l.first
	l.cut = append(l.cut, l.messages[:n]...)
	l.messages, l.first = append([]bus.Message(nil), l.messages[n:]...), l.first+n
	l.wake()
}

// Unpurge brings back what was purged, as restoring a copy of all of it does.
func (l *Log) Unpurge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages, l.first, l.cut = append(l.cut, l.messages...), 1, nil
	l.wake()
}

// RollBack takes the log back to a sequence, as restoring an older copy does.
func (l *Log) RollBack(to uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, msg := range l.messages[to+1-l.first:] {
		delete(l.ids, msg.ID)
	}
	l.messages = append([]bus.Message(nil), l.messages[:to+1-l.first]...)
	l.lives++
	if l.watch.BackAt != nil {
		l.watch.BackAt(append(append([]bus.Message(nil), l.cut...), l.messages...))
	}
	l.wake()
}

// Recreate puts another log in this one's place, which holds its genesis
// alone.
func (l *Log) Recreate(genesis []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lives++
	l.first, l.messages, l.cut, l.ids = 1, nil, nil, map[string]place{}
	watch := l.watch
	l.watch.Stored = watch.MadeAnew
	l.store(l.model+".ctl.genesis", bus.NewID(), genesis)
	l.watch = watch
}

// Client is the log as one party sees it, over its way.
type Client struct {
	log *Log
	way *Way

	mu    sync.Mutex
	pace  func() time.Duration // how long each delivery takes; guarded by mu
	stale uint64               // how far the server that is asked is behind; guarded by mu
}

// Times of a client, as the real log's.
const (
	attemptTimeout = time.Second
	apiTimeout     = 5 * time.Second
	retryWait      = 50 * time.Millisecond
)

// By is the log over a way.
func (l *Log) By(way *Way) *Client { return &Client{log: l, way: way} }

// Pace makes each delivery take a time; nil: none.
func (c *Client) Pace(pace func() time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pace = pace
}

// Stale has the client ask a server that is behind by so many messages.
func (c *Client) Stale(behind uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale = behind
}

func (c *Client) settings() (pace func() time.Duration, stale uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pace, c.stale
}

// Limit is as bus.Log's.
func (c *Client) Limit() int { return c.log.Limit() }

// Append is as bus.Log's: it retries under the same id until ctx ends, or
// once with guards.
func (c *Client) Append(
	ctx context.Context, subject, id string, data []byte, guards ...bus.Guard,
) (ack bus.Ack, err error) {
	for attempt := 1; ; attempt++ {
		ack = bus.Ack{}
		err := c.way.call(
			ctx, attemptTimeout,
			func() (err error) { ack, err = c.attempt(subject, id, data, guards); return err },
		)
		if err == nil {
			ack.Duplicate = ack.Duplicate && attempt == 1
			return ack, nil
		}
		var refused *bus.RefusedError
		if errors.As(err, &refused) && attempt > 1 {
			err = refused.Err // the first may be stored
		}
		if refused != nil || errors.Is(err, ErrDead) || len(guards) > 0 {
			return bus.Ack{}, err
		}
		if ack.Seq > 0 {
			c.log.unacked(id)
		}
		if !Sleep(ctx, retryWait) {
			return bus.Ack{}, ctx.Err()
		}
	}
}

func (c *Client) attempt(subject, id string, data []byte, guards []bus.Guard) (bus.Ack, error) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	return c.log.take(subject, id, data, guards)
}

// unacked tells that the acknowledgement of a stored message got lost.
func (l *Log) unacked(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch.Unacked != nil {
		l.watch.Unacked(id)
	}
}

// End is as bus.Log's.
func (c *Client) End(ctx context.Context) (first, last uint64, err error) {
	err = c.way.call(ctx, apiTimeout, func() error { first, last, err = c.log.End(ctx); return err })
	if err != nil {
		return 0, 0, err
	}
	_, stale := c.settings()
	return first, max(first, last-min(stale, last)), nil
}

// Message is as bus.Log's.
func (c *Client) Message(ctx context.Context, seq uint64) (msg *bus.Message, err error) {
	err = c.way.call(ctx, apiTimeout, func() error { msg, err = c.log.Message(ctx, seq); return err })
	if err != nil {
		return nil, err
	}
	return msg, nil
}

var errCut = errors.New("the servers cannot be reached")

// Tail is as bus.Log's.
func (c *Client) Tail(ctx context.Context, from bus.Position, deliver func(*bus.Message) error) error {
	trouble := func(err error) {
		if from.Trouble != nil {
			from.Trouble(err)
		}
	}
	failed := true // as far as anybody knows
	for {
		open, _, changed := c.way.state()
		if !open {
			trouble(errCut)
			failed = true
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		if failed {
			trouble(nil)
			failed = false
		}
		if err := c.run(ctx, &from, deliver); !errors.Is(err, errRestart) {
			return err
		}
		if !Sleep(ctx, retryWait) {
			return ctx.Err()
		}
	}
}

// run delivers until the tail is to start again.
func (c *Client) run(ctx context.Context, from *bus.Position, deliver func(*bus.Message) error) error {
	life, err := c.log.check(from)
	if err != nil {
		return err
	}
	for {
		open, _, cut := c.way.state()
		if !open {
			return errRestart
		}
		msg, changed, err := c.log.next(from.Applied+1, life)
		switch {
		case err != nil:
			return err
		case msg == nil:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			case <-cut:
			}
			continue
		}
		if pace, _ := c.settings(); pace != nil {
			if d := pace(); d > 0 && !Sleep(ctx, d) {
				return ctx.Err()
			}
			if open, _, _ := c.way.state(); !open {
				return errRestart
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := deliver(msg); err != nil {
			return err
		}
		from.Applied = msg.Seq
	}
}
