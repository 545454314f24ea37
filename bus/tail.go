package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Position is where a tail goes on.
type Position struct {
	Applied uint64 // the last sequence that was applied, 0 before any
	// Check reports whether a message, which has the sequence that was delivered
	// or applied last, is the very one that was applied. It is asked at every
	// start but one at 0.
	Check func(*Message) bool
	// Trouble, if set, is called with why the log cannot be read, and with nil
	// once it can: at the first start of a tail, and at each change.
	Trouble func(error)
}

// GapError is returned when the log has no longer, or never had, the message
// that must come next: purged, cut or deleted.
type GapError struct{ Want, Got uint64 }

func (e *GapError) Error() string {
	return fmt.Sprintf(
		"the log has a hole: sequence %d must come next, and %d came; its messages were purged or deleted, and nothing "+
			"is learned across a hole",
		e.Want, e.Got,
	)
}

// RolledBackError is returned when the log does not continue what was
// applied: it was restored from an older copy, or made again.
type RolledBackError struct {
	Applied uint64 // the last sequence applied
	End     uint64 // the log's last sequence where it ends before Applied, else 0
}

func (e *RolledBackError) Error() string {
	if e.End > 0 {
		return fmt.Sprintf("the log ends at %d, and %d was applied: what came after is gone from it", e.End, e.Applied)
	}
	return fmt.Sprintf(
		"the log holds another message at %d than the one applied: it was rolled back and continued, or made anew",
		e.Applied,
	)
}

const (
	tailRun       = 64                     // messages taken in a row at most
	tailHeartbeat = 250 * time.Millisecond // how often an idle server says that it lives
	tailSilence   = 3 * tailHeartbeat      // without a word: start again
	tailIdle      = time.Second            // without a message: see whether the log has more
	tailExpiry    = 30 * time.Second       // of a request for messages
	tailAPI       = time.Second            // of an API call of the tail
	tailLinger    = 10 * time.Second       // how long a server keeps a consumer that no one asks
)

// errRestart means that the consumer is of no more use and a new one is to be
// started.
var errRestart = errors.New("the tail's consumer ended")

// Tail delivers every message after a position, in order, one at a time,
// until ctx ends, deliver returns an error, or the log cannot continue what
// was applied: *GapError or *RolledBackError. Whatever else happens (a server
// that stops, a lost connection, a consumer that vanished) it starts again
// from what was applied last.
//
// Every start begins at the message applied last, not behind it, and that
// message must pass the position's Check: a log that was rolled back and
// continued looks contiguous otherwise.
func (l *Log) Tail(ctx context.Context, from Position, deliver func(*Message) error) error {
	t := &tail{log: l, position: from, deliver: deliver, window: newWindow()}
	for {
		err := t.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !t.again(err) {
			return err
		}
		if text := err.Error(); !errors.Is(err, errRestart) && text != t.said {
			l.conn.config.notice(fmt.Sprintf("the log %s cannot be read, trying on: %v", l.config.Stream(), err))
			t.trouble(text, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryWait):
		}
	}
}

type tail struct {
	log      *Log
	position Position
	deliver  func(*Message) error
	window   *window
	failure  error  // what deliver returned
	said     string // why the log cannot be read, empty if it can
	started  bool   // once
}

func (t *tail) trouble(text string, err error) {
	if (t.said != text || !t.started) && t.position.Trouble != nil {
		t.position.Trouble(err)
	}
	t.said = text
}

// again reports whether a tail that ended so starts again.
func (t *tail) again(err error) bool {
	var gap *GapError
	var rolled *RolledBackError
	var denied *PermissionError
	return t.failure == nil && !errors.As(err, &gap) && !errors.As(err, &rolled) && !errors.As(err, &denied) &&
		!t.log.conn.IsClosed()
}

// run replays through one consumer until it ends.
func (t *tail) run(ctx context.Context) error {
	ctx, release := t.whileConnected(ctx)
	defer release()
	err := t.replay(ctx)
	if t.failure == nil && errors.Is(err, context.Canceled) {
		return context.Cause(ctx)
	}
	return err
}

// whileConnected derives a context that also ends when the connection is made
// again: anyone who reconnects may have missed the end of its consumer, or the
// answer to its request for one.
func (t *tail) whileConnected(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	status := t.log.conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	var watch sync.WaitGroup
	watch.Go(func() {
		for range status {
			cancel(errRestart)
		}
	})
	return ctx, func() {
		t.log.conn.RemoveStatusListener(status) // closes it
		watch.Wait()
		cancel(nil)
	}
}

func (t *tail) replay(ctx context.Context) error {
	consumer, pending, err := t.start(ctx)
	if err != nil {
		return err
	}
	defer t.log.dropConsumer(consumer)
	t.trouble("", nil)
	t.started = true
	if pending == 0 {
		if err := t.checkEnd(ctx); err != nil {
			return err
		}
	}
	conn := t.log.conn
	messages := make(chan *nats.Msg, maxWindow+1024) // and what the consumer says of itself
	inbox := conn.NewInbox()
	sub, err := conn.ChanSubscribe(inbox, messages)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	p := newPull(t)
	p.inbox, p.subject = inbox, conn.api+"CONSUMER.MSG.NEXT."+t.log.config.Stream()+"."+consumer
	return p.loop(ctx, messages)
}

// start makes a consumer that begins at what was applied last, and returns
// how many messages it has.
func (t *tail) start(ctx context.Context) (name string, pending uint64, err error) {
	err = t.log.conn.do(ctx, t.log.conn.api, tailAPI, func(ctx context.Context) error {
		consumer, err := t.log.js.CreateConsumer(ctx, t.log.config.Stream(), jetstream.ConsumerConfig{
			Name:              "lockstep-" + NewID(),
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       max(t.position.Applied, 1),
			AckPolicy:         jetstream.AckNonePolicy,
			MemoryStorage:     true,
			Replicas:          1,
			InactiveThreshold: tailLinger,
		})
		if err == nil {
			name, pending = consumer.CachedInfo().Name, consumer.CachedInfo().NumPending
		}
		return err
	})
	return name, pending, err
}

// dropConsumer deletes a consumer without waiting: where that fails, the
// server forgets it by itself.
func (l *Log) dropConsumer(name string) {
	_ = l.conn.Publish(l.conn.api+"CONSUMER.DELETE."+l.config.Stream()+"."+name, nil)
}

// checkEnd is called when the log has nothing from the position on.
func (t *tail) checkEnd(ctx context.Context) error {
	if t.position.Applied > 0 {
		if err := t.confirmRollback(ctx); err != nil {
			return err
		}
		return errRestart
	}
	first, _, err := t.log.End(ctx)
	if err == nil && first > 1 { // all of it was purged: no message will show the hole
		err = &GapError{Want: 1, Got: first}
	}
	return err
}

// confirmRollback is called when the log seems to end before what was
// applied. A stale server can look so; it is believed only once an
// acknowledged control event gets a sequence that was applied already.
func (t *tail) confirmRollback(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	// An empty log is one being made: nothing may come before its genesis.
	if _, last, err := t.log.End(ctx); err != nil || last == 0 {
		return err
	}
	ack, err := t.log.Append(ctx, t.log.config.controlSubject("checkpoint"), NewID(), nil)
	if err != nil {
		return err
	}
	if ack.Seq <= t.position.Applied {
		return &RolledBackError{Applied: t.position.Applied, End: ack.Seq - 1}
	}
	return nil
}

// pull asks one consumer for messages and checks each.
type pull struct {
	tail    *tail
	subject string
	inbox   string
	next    uint64 // the sequence that must come next
	sent    uint64 // the consumer's own count of what it sent
	asked   uint64 // that count once all that was asked for has come
	flow    flow
	pace    pace
	came    time.Time // when a message came last, or the log was looked at
	msg     Message
}

func newPull(t *tail) *pull {
	return &pull{tail: t, next: max(t.position.Applied, 1), flow: flow{now: time.Now}, pace: pace{now: time.Now}}
}

func (p *pull) loop(ctx context.Context, messages <-chan *nats.Msg) error {
	silence := time.NewTimer(tailSilence)
	defer silence.Stop()
	turn := time.NewTimer(tailSilence) // to ask, while the tail is polite
	defer turn.Stop()
	for p.came = time.Now(); ; {
		wait, err := p.ask()
		if err != nil {
			return err
		}
		if wait > 0 {
			turn.Reset(wait)
		}
		began, dry := time.Time{}, p.dry()
		if dry {
			began = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-silence.C:
			return errRestart
		case <-turn.C:
		case msg := <-messages:
			if dry {
				p.flow.waited(time.Since(began))
			}
			if err := p.takeAll(ctx, msg, messages); err != nil {
				return err
			}
			silence.Reset(tailSilence)
		}
	}
}

// takeAll handles a message and, up to a number, those that are here already:
// to wait for each by itself takes longer than to read it.
func (p *pull) takeAll(ctx context.Context, msg *nats.Msg, messages <-chan *nats.Msg) error {
	before := p.sent
	for more := min(len(messages), tailRun); ; more-- {
		if err := p.take(ctx, msg); err != nil {
			return err
		}
		if more == 0 {
			break
		}
		msg = <-messages
	}
	if p.sent != before {
		p.came = time.Now()
	}
	if p.flow.turn(p.sent, p.asked) {
		p.tail.window.grow()
	}
	return nil
}

// dry reports whether the server has sent all that it was asked for, and has
// more.
func (p *pull) dry() bool { return p.msg.Pending > 0 && p.flow.atEnd(p.sent) }

// ask requests as many messages as the window has room for. A tail that is
// polite asks for few at a time, and has to wait between; then the rest of that
// wait is returned.
func (p *pull) ask() (wait time.Duration, err error) {
	size := p.tail.window.size()
	for {
		underWay := int(p.asked - p.sent)
		n := size - underWay
		if n < max(size/4, 1) { // not worth a request
			return 0, nil
		}
		if now := time.Now(); p.msg.Pending > uint64(underWay) && p.pace.polite(now) {
			if wait := p.pace.due.Sub(now); wait > 0 {
				return wait, nil
			}
			n = min(n, politeBatch)
			p.pace.asked(n, p.tail.window.mean, now)
		}
		if err := p.request(n); err != nil {
			return 0, err
		}
	}
}

func (p *pull) request(n int) error {
	request, err := json.Marshal(map[string]any{"batch": n, "expires": tailExpiry, "idle_heartbeat": tailHeartbeat})
	if err != nil {
		return err
	}
	p.asked += uint64(n)
	p.flow.asked(p.asked)
	return p.tail.log.conn.PublishRequest(p.subject, p.inbox, request)
}

// take handles what the consumer sent: a message, or word of its state.
func (p *pull) take(ctx context.Context, msg *nats.Msg) error {
	// Only what was stored has a place. The header tells nothing: a stranger
	// can store a message with a Status of its own.
	if !strings.HasPrefix(msg.Reply, "$JS.ACK.") {
		return p.control(ctx, msg)
	}
	count, err := p.parse(msg)
	if err != nil {
		return err
	}
	// A hole in the consumer's own count was torn on the way here, and says
	// nothing of the log.
	if p.sent++; count != p.sent {
		return fmt.Errorf("%w: delivery %d came after %d", errRestart, count, p.sent-1)
	}
	p.pace.came(p.msg.Seq + p.msg.Pending)
	tooMuch := p.tail.window.took(msg.Size(), int(p.asked-p.sent))
	if p.msg.Seq != p.next {
		return &GapError{Want: p.next, Got: p.msg.Seq}
	}
	t := p.tail
	p.next++
	if p.msg.Seq == t.position.Applied {
		if !t.position.Check(&p.msg) {
			return &RolledBackError{Applied: t.position.Applied}
		}
		return nil
	}
	if t.failure = t.deliver(&p.msg); t.failure != nil {
		return t.failure
	}
	t.position.Applied = p.msg.Seq
	if tooMuch {
		return fmt.Errorf("%w: %d messages of %d bytes are on their way", errRestart, p.asked-p.sent, msg.Size())
	}
	return nil
}

// control handles a message without a sequence.
func (p *pull) control(ctx context.Context, msg *nats.Msg) error {
	switch msg.Header.Get("Status") {
	case "100": // heartbeat
		if now := time.Now(); now.Sub(p.came) >= tailIdle {
			p.came = now
			return p.checkLag(ctx)
		}
		return nil
	case "408": // a request expired
		left, err := strconv.ParseUint(msg.Header.Get("Nats-Pending-Messages"), 10, 64)
		if err != nil || left > p.asked-p.sent {
			return errRestart
		}
		p.asked -= left
		p.flow.expired()
		return nil
	}
	return fmt.Errorf("%w: %s", errRestart, msg.Header.Get("Description"))
}

// checkLag is called when a consumer lives and sends nothing. It is of no use
// if the log has more than it sent.
func (p *pull) checkLag(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tailAPI)
	defer cancel()
	_, last, err := p.tail.log.End(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // the stream has no leader now; the consumer lives, and may go on
	}
	if err == nil && last >= p.next {
		err = fmt.Errorf("%w: the log goes to %d, and nothing came after %d", errRestart, last, p.next-1)
	}
	return err
}

// parse reads a delivery's place from its reply subject, and returns the
// consumer's own count of it:
// $JS.ACK.[domain.account.]stream.consumer.deliveries.stream-seq.consumer-seq.time.pending[.token]
func (p *pull) parse(msg *nats.Msg) (count uint64, err error) {
	var tokens [13]string
	n := split(msg.Reply, tokens[:])
	place := tokens[2:]
	if n >= 11 {
		place = tokens[4:]
	}
	if n < 9 {
		return 0, fmt.Errorf("%w: a delivery without a place: %q", errRestart, msg.Reply)
	}
	seq, err1 := strconv.ParseUint(place[3], 10, 64)
	count, err2 := strconv.ParseUint(place[4], 10, 64)
	nanos, err3 := strconv.ParseInt(place[5], 10, 64)
	pending, err4 := strconv.ParseUint(place[6], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return 0, fmt.Errorf("%w: %w", errRestart, errors.Join(err1, err2, err3, err4))
	}
	p.msg = Message{
		Seq: seq, Subject: msg.Subject, ID: msg.Header.Get(nats.MsgIdHdr), Data: msg.Data,
		Time: time.Unix(0, nanos), Pending: pending,
	}
	return count, nil
}

// split cuts a subject at its dots into tokens, and returns how many there
// are. The last takes the rest.
func split(subject string, tokens []string) (n int) {
	for n < len(tokens)-1 {
		token, rest, found := strings.Cut(subject, ".")
		tokens[n] = token
		n++
		if !found {
			return n
		}
		subject = rest
	}
	tokens[n] = subject
	return n + 1
}
