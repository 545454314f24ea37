// Package replica is one replica of a model: it replays the log into a model,
// decides when that is fit to answer, compares it with the other replicas' at
// every checkpoint, and writes and restores snapshots.
//
// # Goroutines
//
// Run is the owner of the replica's life: it alone steps the state machine
// (see life), and carries out what follows. Beside it run, one at a time, an
// attempt to replay the log, with a goroutine that reads ahead (see follow);
// the heartbeat; the audit; the watch over the log's end; and the reports of
// rejections. They send the owner events, which never waits for them, and read
// the Standing that the owner publishes.
//
// The model itself is guarded by a lock, which the fold takes for one message
// at a time and a request for one prediction; see Lock.
package replica

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// Log is what a replica needs of its model's log. bus.Log is the real one. It
// is safe for concurrent use.
type Log interface {
	// End returns the first and last sequence of the log.
	End(ctx context.Context) (first, last uint64, err error)
	// Message reads one message, or returns bus.ErrNoMessage.
	Message(ctx context.Context, seq uint64) (*bus.Message, error)
	// Tail delivers every message after a position, in order and without a
	// hole, until ctx ends or the log turns out not to continue it. A message
	// is valid until deliver returns.
	Tail(ctx context.Context, from bus.Position, deliver func(*bus.Message) error) error
}

// Group is the requests, as the replica's life sees them. Join, Leave and
// Close are called by the owner, one at a time; Open and Applied by the fold,
// at the same time as the owner's, so that what was accepted can be answered
// while the owner leaves.
type Group interface {
	// Join has this worker answer requests with the replica, which is fit for
	// it.
	Join() error
	// Leave accepts no more requests, and returns once those that were are
	// answered. If the worker has not joined it does nothing.
	Leave()
	// Close ends all requests that wait for a sequence: nothing will be
	// applied for a while.
	Close()
	// Open lets requests wait again, for sequences after the one given.
	Open(applied uint64)
	// Applied is called after each message, with what the fold made of it,
	// which is valid until Applied returns. It must not block: the fold waits.
	Applied(e *model.Entry, result *model.Result)
}

// Verdicts is where rejections are reported: one message per subject,
// whichever replica puts it. It is safe for concurrent use.
type Verdicts interface {
	// Put stores data under a subject; false if the subject already has it. It
	// waits for a server that does not answer until ctx ends. An error means
	// that this message will not be stored.
	Put(ctx context.Context, subject string, data []byte) (stored bool, err error)
}

// Config is what a replica is made of.
type Config struct {
	Name    string // the replica's own, unique in the fleet
	Boot    string // a nonce of this process
	Stream  string // the log's, for messages to people
	Version string // the program's
	Spec    *model.Spec

	Log      Log
	Group    Group
	Verdicts Verdicts

	// What replicas tell each other; without these the replica is alone.
	Heartbeats  fleet.KV // values vanish after fleet.HeartbeatTTL
	Checkpoints fleet.KV
	Snapshots   fleet.Objects
	// SnapshotEvery is how often a snapshot is written at most; 0 is a minute.
	SnapshotEvery time.Duration
	// Advise, if set, publishes what an operator should know.
	Advise func(subject string, data []byte)

	Logger *slog.Logger
	// OnState, if set, is called by the owner at each change of state.
	OnState func(fleet.State)
	// Tamper, if set, may put another model in the place of the replica's
	// after each message, as a failing machine would, or panic, as a faulty
	// component would. For tests.
	Tamper func(*model.Model) *model.Model
}

// Replica is one replica of a model.
type Replica struct {
	cfg        Config
	log        *slog.Logger
	core       core
	advisories advisories
	lag        lag
	audit      *audit
	rejects    *rejections
	members    fleet.Members  // the other replicas, for onlookers
	side       sync.WaitGroup // what runs beside the owner
	shared     time.Time      // when another worker of the same name was last seen; of the heartbeat's goroutine

	// Of the owner.
	life    life
	current *attempt                        // the latest
	start   func(*attempt, context.Context) // (*attempt).start; tests have another
	events  mailbox                         // what others tell the owner
	wake    atomic.Uint64                   // the fold tells the owner once this is applied; written by the owner

	standing atomic.Pointer[Standing]          // written by the owner
	changed  chan struct{}                     // the standing has, and the fleet is to know
	peers    atomic.Pointer[[]fleet.Heartbeat] // the live peers, nil while not known; written by the heartbeat
	attested atomic.Pointer[fleet.Attestation] // the last, nil before any; written by the attempt
	restored atomic.Pointer[fleet.Snapshot]    // what the replica began with, nil if it replayed all; written by the attempt
	healings atomic.Int64                      // how often a trial fixed the replica; written by the audit
}

// New makes a replica that has learned nothing. It returns an error if its
// spec does not compile.
func New(cfg Config) (*Replica, error) {
	m, err := model.New(cfg.Spec)
	if err != nil {
		return nil, err
	}
	if cfg.SnapshotEvery == 0 {
		cfg.SnapshotEvery = snapshotEvery
	}
	r := &Replica{
		cfg: cfg, log: cfg.Logger.With("replica", cfg.Name), changed: make(chan struct{}, 1),
		events: newMailbox(),
	}
	r.readers()
	r.core.init(m, cfg.Tamper, &r.lag)
	r.lag.applied = &r.core.applied
	r.audit = newAudit(r)
	r.rejects = newRejections(cfg.Verdicts, r.log)
	r.start = (*attempt).start
	r.wake.Store(math.MaxUint64)
	r.standing.Store(r.life.standing())
	return r, nil
}

// Run replays the log, and has the group answer while the replica is fit,
// until ctx ends; then it leaves the group, and returns nil. It returns an
// error if the replica can't go on: the log has a hole (bus.GapError), or
// another contract (ErrContract). If a component panics it goes on without
// applying anything, so that the replica still says what is wrong with it.
func (r *Replica) Run(ctx context.Context) error {
	// What runs beside the owner outlives ctx until the group is left.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer r.side.Wait()
	defer stop()
	r.side.Go(func() { r.rejects.run(inner) })
	r.side.Go(func() { r.watchEnd(inner) })
	if r.cfg.Checkpoints != nil {
		r.side.Go(func() { r.beat(inner) })
		r.side.Go(func() { r.audit.run(inner) })
	}
	asked := ctx.Done()
	for r.step(inner, started{}); !r.life.over; {
		select {
		case <-asked:
			asked = nil
			r.step(inner, stopAsked{})
		case <-r.events.ready:
			r.pump(inner)
		}
	}
	return r.life.err
}

// Stopped shows that the replica's worker has stopped. Only then, once Run has
// returned, may it be called.
func (r *Replica) Stopped() {
	r.life.state = fleet.Stopped
	r.show()
}

// pump takes the events that have come.
func (r *Replica) pump(ctx context.Context) {
	for _, e := range r.events.take() {
		r.step(ctx, e)
	}
}

// step takes one event, and carries out what follows. ctx is of the attempts
// that begin.
func (r *Replica) step(ctx context.Context, event any) {
	for _, e := range r.life.step(event, r.core.applied.Load()) {
		switch e {
		case show:
			r.show()
		case beginReplay:
			r.current = newAttempt(r, r.life.plan())
			r.start(r.current, ctx)
		case interrupt:
			r.current.interrupt()
		case join:
			if err := r.join(); err != nil {
				r.step(ctx, unjoined{err})
			} else {
				r.step(ctx, joined{})
			}
		case recheck:
			r.current.recheck()
		case leave:
			r.cfg.Group.Leave()
		case closeWaits:
			r.cfg.Group.Close()
		case finish: // Run sees it
		}
	}
	if c, ok := event.(condemned); ok {
		r.settled()
		r.advise("quarantined", "this replica is quarantined: "+c.why+"; restart it to try again")
	}
	r.setWake()
}

// setWake has the fold tell the owner once the target is applied.
func (r *Replica) setWake() {
	at := uint64(math.MaxUint64)
	if r.life.state == fleet.Replaying && r.life.applied < r.life.target {
		at = r.life.target
	}
	r.wake.Store(at)
	if r.core.applied.Load() >= at { // it was applied just before
		r.events.send(reached{})
	}
}

// show publishes the standing.
func (r *Replica) show() {
	before := r.standing.Load()
	now := r.life.standing()
	r.standing.Store(now)
	if now.State == before.State {
		return
	}
	r.log.Info("state", "state", now.State.String(), "seq", r.core.applied.Load())
	select {
	case r.changed <- struct{}{}:
	default:
	}
	if r.cfg.OnState != nil {
		r.cfg.OnState(now.State)
	}
}

// join enters the queue group: the replica is fit to answer.
func (r *Replica) join() error {
	if err := r.cfg.Group.Join(); err != nil {
		return fmt.Errorf("model service: %w", err)
	}
	if log, _ := r.core.differed(); log > 0 {
		r.advise(
			"replaced",
			fmt.Sprintf(
				"from sequence %d on the log holds other messages than this replica had applied: those are learned now, and "+
					"what stood there is gone",
				log,
			),
		)
	}
	return nil
}

// Standing is how the replica is, as its owner last published it.
func (r *Replica) Standing() *Standing { return r.standing.Load() }

// State is what the replica is doing now.
func (r *Replica) State() fleet.State { return r.Standing().State }

// Applied is the last sequence that the replica has applied.
func (r *Replica) Applied() uint64 { return r.core.applied.Load() }

// Name is the replica's own.
func (r *Replica) Name() string { return r.cfg.Name }

// Spec is the model's.
func (r *Replica) Spec() *model.Spec { return r.cfg.Spec }

// Unready says why the replica does not answer, or is empty if it does.
func (r *Replica) Unready() string {
	switch state := r.State(); state {
	case fleet.Ready:
		return ""
	case fleet.Quarantined:
		return "it is quarantined: " + r.Advisory()
	case fleet.Failed:
		return "it has failed: " + r.Advisory()
	default:
		return fmt.Sprintf("it is %s, at sequence %d with %d messages to go", state, r.Applied(), r.Lag())
	}
}

// Describe fills in a status what the replica says of itself.
func (r *Replica) Describe(s *fleet.Status) {
	standing := r.Standing()
	s.Replica, s.State, s.Lag = r.cfg.Name, standing.State.String(), r.Lag()
	s.Stream, s.Version, s.Advisory = r.cfg.Stream, r.cfg.Version, r.Advisory()
	s.Folds, s.Healings, s.Unreported = int64(standing.Folds+standing.Epoch), r.healings.Load(), r.rejects.dropped.Load()
	if from := r.restored.Load(); from != nil {
		s.Restored = from.Seq
	}
	r.core.describe(s)
}

// mailbox holds the events that the owner has not taken yet. Sending never
// waits, so that the fold is not held up while the owner leaves the group,
// which wants the fold to go on.
type mailbox struct {
	ready chan struct{} // something has come

	mu     sync.Mutex
	events []any // guarded by mu
}

func newMailbox() mailbox { return mailbox{ready: make(chan struct{}, 1)} }

// send adds an event. One that says nothing new is left out.
func (m *mailbox) send(event any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.events); n > 0 && m.events[n-1] == event {
		return
	}
	m.events = append(m.events, event)
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// take returns the events in the order in which they came.
func (m *mailbox) take() []any {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.events
	m.events = nil
	return events
}
