// Package worker joins the log and the model: it replays the one into the
// other, answers from it, and is the only package that knows both.
package worker

import (
	"context"
	"errors"
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

// Log is what a worker needs of its model's log. bus.Log is the real one.
type Log interface {
	// Append stores a message and returns once it is acknowledged. It
	// retries under the same id until ctx ends.
	Append(ctx context.Context, subject, id string, data []byte, guards ...bus.Guard) (bus.Ack, error)
	// Limit is how many bytes a message may have.
	Limit() int
	// End returns the first and last sequence of the log.
	End(ctx context.Context) (first, last uint64, err error)
	// Message reads one message, or returns bus.ErrNoMessage.
	Message(ctx context.Context, seq uint64) (*bus.Message, error)
	// Tail delivers every message after a position, in order and without a
	// hole, until ctx ends or the log turns out not to continue it.
	Tail(ctx context.Context, from bus.Position, deliver func(*bus.Message) error) error
}

// Doors is where a worker answers requests. bus.Doors is the real one.
type Doors interface {
	// Open starts to serve endpoints as one service, until its Stop.
	Open(bus.ServiceConfig) (bus.Service, error)
	// Dropped is how many requests were lost because they came too fast.
	Dropped() int
}

// Config is what a worker is made of.
type Config struct {
	Name    string // the replica's own, unique in the fleet
	Stream  string // the log's, for replies
	Version string // the program's
	Spec    *model.Spec

	Log       Log
	Doors     Doors
	Predicted Counter
	Verdicts  Verdicts

	// What replicas tell each other; without these the replica is alone.
	Heartbeats  fleet.KV // entries vanish after HeartbeatTTL
	Checkpoints fleet.KV
	Snapshots   fleet.Objects
	// SnapshotEvery is how often a snapshot is written at most; 0 is a minute.
	SnapshotEvery time.Duration
	// Advise, if set, publishes what an operator should know.
	Advise func(subject string, data []byte)

	Logger *slog.Logger
	// OnState, if set, is called at each change of state.
	OnState func(fleet.State)
	// Tamper, if set, may put another model in the place of the replica's
	// after each message, as a failing machine would. For tests.
	Tamper func(*model.Model) *model.Model
}

// Limits of a worker.
const (
	parkLimit      = 10_000           // requests that wait for a sequence
	parkBytes      = 16 << 20         // of their bodies
	defaultTimeout = 2 * time.Second  // of a request that waits
	maxTimeout     = 60 * time.Second // the most a request may ask for
	drainTimeout   = 5 * time.Second  // for what was accepted to be answered
)

// ErrContract is returned when the log's genesis names another contract than
// the worker's spec: its events mean something else.
var ErrContract = errors.New("the log has another contract")

// Worker is one replica of a fleet.
type Worker struct {
	cfg     Config
	log     *slog.Logger
	state   atomic.Int32
	lag     lag
	advices struct {
		sync.Mutex
		all []advice // guarded by the mutex
	}
	started   time.Time
	replica   *replica
	parking   *parking
	predicted *predicted
	rejects   *rejections
	decoders  sync.Pool // of *model.Decoder
	replies   sync.Pool // of *[]byte
	maxRow    int       // bytes of a request about a row
	lessons   load      // the teaches that are not answered yet
	group     *group    // of the teaches since the last join; set before any request comes
	giveUp    func()    // ends its appends
	labelKey  []byte    // how a prediction's reply begins

	onLog  atomic.Bool                    // the log has been seen to hold what was applied last
	target atomic.Uint64                  // from there on the replica is caught up: the log's end at the start
	from   atomic.Pointer[fleet.Snapshot] // what the replica was restored from, nil if it replayed all
	stop   atomic.Pointer[func(error)]    // ends the tail, with its cause
	audit  *audit
	side   sync.WaitGroup // what runs beside the fold

	changed     chan struct{}                     // the state has, and the fleet is to know
	fleet       atomic.Pointer[[]fleet.Heartbeat] // the live replicas, nil while not known
	attested    atomic.Pointer[fleet.Attestation] // the last, nil before any
	snapshotDue atomic.Bool                       // at the next checkpoint a snapshot is to be written
	folds       atomic.Int64                      // how often this process folded anew
	foldsBegun  atomic.Int64                      // how many of them have begun
	epochs      atomic.Int64                      // how often the log turned out to be another
	healings    atomic.Int64                      // how often that mended the replica
	base        atomic.Uint64                     // a refold may start from a snapshot up to there
	lagging     atomic.Bool                       // left the group because it fell behind
	toRefold    atomic.Bool                       // the fold is to begin anew
	suspended   atomic.Bool                       // on trial: must not join
	refolding   atomic.Bool                       // on trial, and has not folded to the checkpoint again
	quarantined atomic.Bool

	door struct {
		sync.Mutex
		service bus.Service // the model's, nil when not joined
		closed  bool        // the worker stops: nobody joins any more
	}
	outside outside       // requests that come by other doors
	traffic Traffic       // what came over NATS
	members fleet.Members // the other replicas, for onlookers
}

// New makes a worker. It returns an error if its spec does not compile.
func New(cfg Config) (*Worker, error) {
	m, err := model.New(cfg.Spec)
	if err != nil {
		return nil, err
	}
	w := &Worker{cfg: cfg, started: time.Now(), parking: &parking{limit: parkLimit, limitBytes: parkBytes}}
	w.replica = newReplica(m, cfg.Tamper, &w.lag)
	w.lag.applied = &w.replica.applied
	if w.cfg.SnapshotEvery == 0 {
		w.cfg.SnapshotEvery = snapshotEvery
	}
	w.audit = newAudit(w)
	w.changed = make(chan struct{}, 1)
	w.log = cfg.Logger.With("replica", cfg.Name)
	w.predicted = &predicted{counter: cfg.Predicted, boot: bus.NewID(), log: w.log}
	w.rejects = &rejections{verdicts: cfg.Verdicts, log: w.log, queue: make(chan rejection, 1024)}
	w.labelKey = append(append([]byte{'{'}, quote(cfg.Spec.Label.Name)...), ':')
	w.maxRow = maxRow(cfg.Spec)
	w.replies.New = func() any { return new([]byte) }
	w.decoders.New = func() any { return model.NewDecoder(cfg.Spec) }
	return w, nil
}

// State is what the worker is doing now.
func (w *Worker) State() State { return fleet.State(w.state.Load()) }

func (w *Worker) setState(s fleet.State) {
	if w.quarantined.Load() && s < fleet.Draining {
		return // it goes on folding, and does not come back
	}
	if fleet.State(w.state.Swap(int32(s))) == s {
		return
	}
	w.log.Info("state", "state", s.String(), "seq", w.replica.position().Applied)
	select {
	case w.changed <- struct{}{}:
	default:
	}
	if w.cfg.OnState != nil {
		w.cfg.OnState(s)
	}
}

// Run serves until ctx ends, and then answers what it has accepted before it
// returns nil. It returns an error if the replica can't go on: the log has a
// hole (bus.GapError), or another contract (ErrContract).
func (w *Worker) Run(ctx context.Context) error {
	self, err := w.cfg.Doors.Open(w.statusService())
	if err != nil {
		return fmt.Errorf("status service: %w", err)
	}
	// What the fold does outlives ctx until the doors are drained.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.side.Go(func() { w.predicted.run(inner) })
	w.side.Go(func() { w.rejects.run(inner) })
	w.side.Go(func() { w.watchEnd(inner) })
	if w.cfg.Checkpoints != nil {
		w.side.Go(func() { w.beat(inner) })
		w.side.Go(func() { w.audit.run(inner) })
	}
	folded := make(chan error, 1)
	go func() { folded <- w.fold(inner) }()

	select {
	case <-ctx.Done():
		w.setState(fleet.Draining)
		w.drain()
		stop()
		<-folded
		err = nil
	case err = <-folded:
		w.parking.close() // nothing will be applied any more
		w.drain()
		stop()
	}
	w.side.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if stopErr := self.Stop(last); stopErr != nil {
		w.log.Warn("the status service did not stop cleanly", "error", stopErr)
		self.Close()
	}
	w.setState(fleet.Stopped)
	return err
}

// fold replays the log into the replica until ctx ends. A log that turns out
// to have been rolled back is the truth all the same: the replica is folded
// anew.
func (w *Worker) fold(ctx context.Context) error {
	for {
		w.setState(fleet.Restoring)
		first, last, err := w.end(ctx)
		if err != nil {
			return err
		}
		if w.replica.position().Applied == 0 {
			w.prepare(ctx, first, last)
		}
		w.target.Store(last)
		w.lag.end.Store(last)
		w.parking.open(w.replica.applied.Load())
		w.setState(fleet.Replaying)
		w.foldsBegun.Store(w.folds.Load())
		refold, err := w.tail(ctx)
		var rolled *bus.RolledBackError
		var gap *bus.GapError
		switch {
		case ctx.Err() != nil:
			return err
		case refold:
			w.log.Warn("folding anew", "from_at_most", w.base.Load())
			err = w.reset()
		case errors.As(err, &rolled):
			err = w.foldAnew(ctx, rolled)
		case errors.As(err, &gap):
			err = w.jump(ctx, gap)
		}
		if err != nil {
			return err
		}
	}
}

// tail applies the log until that ends, and tells whether it ended for the
// replica to be folded anew.
func (w *Worker) tail(ctx context.Context) (refold bool, err error) {
	for {
		position := w.replica.position()
		position.Trouble = w.troubled
		check := position.Check
		position.Check = func(msg *bus.Message) bool {
			same := check(msg)
			w.onLog.Store(same)
			return same
		}
		tailing, end := context.WithCancelCause(ctx)
		stop := func(why error) { end(why) }
		w.stop.Store(&stop)
		if !w.toRefold.Load() {
			err = follow(tailing, w.cfg.Log, position, w.cfg.Spec, w.deliver)
		}
		why := context.Cause(tailing)
		end(nil)
		switch {
		case w.toRefold.Swap(false):
			return true, nil
		case !errors.Is(why, errRecheck) || ctx.Err() != nil || !errors.Is(err, context.Canceled):
			return false, err
		}
	}
}

// interrupt ends the tail, for a reason that tail knows.
func (w *Worker) interrupt(why error) {
	if stop := w.stop.Load(); stop != nil {
		(*stop)(why)
	}
}

// prepare restores a replica that has applied nothing from a snapshot, if
// there is one that helps.
func (w *Worker) prepare(ctx context.Context, first, last uint64) {
	if w.cfg.Checkpoints == nil {
		return
	}
	limit := uint64(math.MaxUint64)
	if w.suspended.Load() {
		limit = w.base.Load()
	}
	if incarnation, known := w.incarnation(ctx); known {
		w.restore(ctx, incarnation, first, last, limit)
	}
}

// incarnation is the log's own, however long the server takes to say; where a
// compaction cut the genesis, the base's. Without either any will do, for the
// log must hold what a snapshot ends with before anybody is answered.
func (w *Worker) incarnation(ctx context.Context) (incarnation string, known bool) {
	for {
		msg, err := w.cfg.Log.Message(ctx, 1)
		if err == nil {
			g, err := model.ParseGenesis(msg.Data)
			if err != nil {
				return "", false
			}
			return g.Incarnation, true
		}
		if errors.Is(err, bus.ErrNoMessage) {
			switch base, err := fleet.Base(ctx, w.cfg.Checkpoints); {
			case err == nil && base == nil:
				return "", true
			case err == nil:
				return base.Incarnation, true
			}
		}
		if !sleep(ctx, time.Second) {
			return "", false
		}
	}
}

// jump goes on past a hole from a snapshot behind it, of the same log, or
// returns the hole.
func (w *Worker) jump(ctx context.Context, gap *bus.GapError) error {
	w.parking.close()
	w.leave()
	first, last, err := w.end(ctx)
	if err != nil || w.cfg.Checkpoints == nil {
		return errors.Join(gap, err)
	}
	applied := w.replica.applied.Load()
	if w.restore(ctx, w.replica.incarnation(), max(first, gap.Got), last, math.MaxUint64) {
		if applied > 0 {
			w.advise("jumped", fmt.Sprintf("the log holds nothing from %d to %d any more; this replica goes on from a snapshot, and whether the log ever held what it had applied before cannot be checked", gap.Want, gap.Got-1))
		}
		return nil
	}
	return fmt.Errorf("%w; no snapshot covers it (see lockstep snapshot ls): restore the log, or let a replica that has all of it write one with lockstep snapshot put", gap)
}

// troubled raises and ends the advisory that the log can't be read.
func (w *Worker) troubled(err error) {
	if err == nil {
		w.endAdvice("log")
		return
	}
	w.advise("log", fmt.Sprintf("the log cannot be read, so nothing new is learned: %v", err))
}

// end finds the log's first and last sequence, however long the server takes to say.
func (w *Worker) end(ctx context.Context) (first, last uint64, err error) {
	for {
		first, last, err = w.cfg.Log.End(ctx)
		var denied *bus.PermissionError
		if err == nil || ctx.Err() != nil || errors.As(err, &denied) {
			return first, last, err
		}
		w.log.Warn("the log does not answer; trying on", "error", err)
		w.troubled(err) // until a tail reads it
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// foldAnew starts afresh on a log that does not continue what was applied.
func (w *Worker) foldAnew(ctx context.Context, rolled *bus.RolledBackError) error {
	if s := w.from.Load(); s != nil && s.Seq == rolled.Applied {
		_ = w.setAside(ctx, *s, "the log does not hold the message that it ends with: it is of another history")
	} else {
		w.advise("rolled-back", fmt.Sprintf("the log was rolled back: %v; folding it anew", rolled))
	}
	w.epochs.Add(1)
	return w.reset()
}

// reset leaves the group, and puts the replica back to the beginning.
func (w *Worker) reset() error {
	w.parking.close()
	w.leave()
	m, err := model.New(w.cfg.Spec)
	if err != nil {
		return err
	}
	w.from.Store(nil)
	w.attested.Store(nil)
	w.onLog.Store(false)
	w.replica.reset(m)
	return nil
}

// deliver applies one message, in the log's order.
func (w *Worker) deliver(e *entry) error {
	m := &e.Message
	if m.Seq == 1 {
		if err := w.checkGenesis(m); err != nil {
			return err
		}
	}
	w.onLog.Store(true)
	w.replica.apply(&e.Entry, func(result *model.Result, chain [32]byte) {
		if time.Since(time.Unix(0, m.Time)) < verdictAge {
			w.rejects.add(w.cfg.Spec.Name, result, chain)
		}
	})
	if w.cfg.Checkpoints != nil && fleet.IsCheckpoint(m) {
		w.attest(m)
	}
	w.lag.delivered(m.Seq, e.pending)
	w.parking.advance(m.Seq)
	return w.caughtUp()
}

// retarget looks again where the log ends, in case it was taken back since the
// replay began.
func (w *Worker) retarget(ctx context.Context) {
	target := w.target.Load()
	if w.State() != fleet.Replaying || w.replica.applied.Load() >= target {
		return
	}
	if _, last, err := w.cfg.Log.End(ctx); err == nil && last < target {
		w.target.CompareAndSwap(target, last)
	}
}

// caughtUp joins the group once the replica is fit to answer.
func (w *Worker) caughtUp() error {
	if w.State() != fleet.Replaying || !w.onLog.Load() || w.suspended.Load() || w.quarantined.Load() || w.replica.applied.Load() < w.target.Load() {
		return nil
	}
	return w.join()
}

// checkGenesis refuses a log that was made for another contract.
func (w *Worker) checkGenesis(m *model.Message) error {
	if m.Subject != model.SubjectGenesis {
		return fmt.Errorf("the log %s does not begin with a genesis but with %q: it is not one of Lockstep's", w.cfg.Stream, m.Subject)
	}
	g, err := model.ParseGenesis(m.Data)
	if err != nil {
		return fmt.Errorf("the log %s: %w", w.cfg.Stream, err)
	}
	own := fleet.Identity{Contract: fleet.ContractOf(w.cfg.Spec)}
	if own.Differs(fleet.GenesisIdentity(g)) != 0 {
		return fmt.Errorf("%w: %s was made with %.16s, this worker's spec is %.16s; start it with the spec that the log was made with (it is in the log: nats stream get %[2]s 1), or give the new model a name of its own", ErrContract, w.cfg.Stream, g.Contract, own.Contract)
	}
	return nil
}

// join enters the queue group, unless the worker stops: the replica is fit to
// answer.
func (w *Worker) join() error {
	w.door.Lock()
	defer w.door.Unlock()
	if w.door.closed || w.door.service != nil || w.State() != fleet.Replaying || w.quarantined.Load() {
		return nil
	}
	appending, giveUp := context.WithCancel(context.Background())
	w.group, w.giveUp = &group{worker: w, ctx: appending}, giveUp
	service, err := w.cfg.Doors.Open(w.modelService())
	if err != nil {
		w.giveUp()
		return fmt.Errorf("model service: %w", err)
	}
	w.door.service = service
	w.lagging.Store(false)
	if log, _ := w.replica.differed(); log > 0 {
		w.advise("replaced", fmt.Sprintf("from sequence %d on the log holds other messages than this replica had applied: those are learned now, and what stood there is gone", log))
	}
	w.outside.admit(true)
	w.setState(fleet.Ready)
	return nil
}

// leave leaves the group. What was accepted is answered by the fold while
// that goes on; what is left then, or once the parking is closed, gets a 503.
func (w *Worker) leave() {
	w.door.Lock()
	service := w.door.service
	w.door.service = nil
	w.door.Unlock()
	if service == nil {
		return
	}
	defer w.giveUp()
	w.outside.admit(false)
	stop := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := service.Stop(ctx); err != nil {
			return err
		}
		return w.outside.drain(ctx)
	}
	if stop(drainTimeout) == nil {
		return
	}
	w.parking.close()
	w.giveUp()
	if err := stop(time.Second); err != nil {
		w.log.Warn("some requests may be unanswered", "error", err)
		service.Close()
	}
}

// drain leaves the group for good while the fold goes on.
func (w *Worker) drain() {
	w.door.Lock()
	w.door.closed = true
	w.door.Unlock()
	w.leave()
	w.parking.close()
}
