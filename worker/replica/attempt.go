package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// ErrContract is returned when the log's genesis names another contract than
// the replica's spec: its events mean something else.
var ErrContract = errors.New("the log has another contract")

// attempt is one replay of the log, from where the replica is or from the
// beginning, until it is interrupted or fails. It runs in a goroutine of its
// own, and sends the owner what it finds: began, confirmed, reached, and as
// its last word ended.
type attempt struct {
	r    *Replica
	plan plan
	end  context.CancelFunc // ends the attempt; set by start

	confirmed bool                               // what was last sent; of the attempt's goroutine
	tailing   atomic.Pointer[context.CancelFunc] // ends the tail under way, and another begins; nil before any
}

func newAttempt(r *Replica, p plan) *attempt { return &attempt{r: r, plan: p} }

// start begins the attempt.
func (a *attempt) start(ctx context.Context) {
	ctx, a.end = context.WithCancel(ctx)
	go func() {
		err := a.run(ctx)
		var final *finalError
		a.r.events.send(ended{err: err, final: errors.As(err, &final)})
	}()
}

// interrupt ends the attempt.
func (a *attempt) interrupt() { a.end() }

// recheck has the tail begin again at what was applied last, and so see
// whether the log still holds it. It is safe for concurrent use.
func (a *attempt) recheck() {
	if end := a.tailing.Load(); end != nil {
		(*end)()
	}
}

// finalError says that a replica cannot go on, whatever the error in it is.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

func (a *attempt) run(ctx context.Context) error {
	r := a.r
	first, last, err := r.end(ctx)
	if err != nil {
		return err
	}
	if a.plan.afresh {
		if err := r.forget(); err != nil {
			return err
		}
	}
	if a.plan.hole != nil {
		if err := r.jump(ctx, a.plan.hole, first, last); err != nil {
			return &finalError{err}
		}
	}
	if r.Applied() == 0 {
		r.prepare(ctx, first, last, a.plan.limit)
	}
	r.lag.end.Store(last)
	r.cfg.Group.Open(r.Applied())
	r.events.send(began{target: last})
	return a.tail(ctx)
}

// tail applies the log until that ends.
func (a *attempt) tail(ctx context.Context) error {
	r := a.r
	for {
		position := r.core.position()
		position.Trouble = r.troubled
		check := position.Check
		position.Check = func(msg *bus.Message) bool {
			same := check(msg)
			a.confirm(same)
			return same
		}
		tailing, end := context.WithCancel(ctx)
		a.tailing.Store(&end)
		err := follow(tailing, r.cfg.Log, position, r.cfg.Spec, a.deliver)
		end()
		var rolled *bus.RolledBackError
		switch {
		case ctx.Err() != nil:
			return err
		case errors.As(err, &rolled):
			r.nameLoss(ctx, rolled)
			return err
		case !errors.Is(err, context.Canceled):
			return err
		}
	}
}

// confirm tells the owner whether the log holds what was applied last.
func (a *attempt) confirm(same bool) {
	if a.confirmed != same {
		a.confirmed = same
		a.r.events.send(confirmed{same})
	}
}

// deliver applies one message, in the log's order.
func (a *attempt) deliver(e *entry) error {
	r, m := a.r, &e.Message
	if m.Seq == 1 {
		if err := r.checkGenesis(m); err != nil {
			return err
		}
	}
	a.confirm(true)
	result, err := r.core.apply(&e.Entry, func(result *model.Result, chain [32]byte) {
		if time.Since(time.Unix(0, m.Time)) < verdictAge {
			r.rejects.add(r.cfg.Spec.Name, result, chain)
		}
	})
	if err != nil {
		return r.fail(err)
	}
	if r.cfg.Checkpoints != nil && fleet.IsCheckpoint(m) {
		a.attest(m)
	}
	r.lag.delivered(m.Seq, e.pending)
	r.cfg.Group.Applied(&e.Entry, result)
	if m.Seq >= r.wake.Load() {
		r.events.send(reached{})
	}
	return nil
}

// fail says that a component panicked, and what is to be done.
func (r *Replica) fail(err error) error {
	var panicked *PanicError
	if errors.As(err, &panicked) {
		r.log.Error(
			"a component panicked", "seq", panicked.Seq, "panic", fmt.Sprint(panicked.Value), "stack",
			string(panicked.Stack),
		)
		r.advise("failed", fmt.Sprintf("%v; this replica applies nothing more and answers nothing but its status. "+
			"The same message will do the same to every replica of this program: report it, and start workers of a program "+
			"that is fixed", err))
	}
	return err
}

// forget puts the replica back to the beginning.
func (r *Replica) forget() error {
	m, err := model.New(r.cfg.Spec)
	if err != nil {
		return err
	}
	r.restored.Store(nil)
	r.attested.Store(nil)
	r.core.reset(m)
	return nil
}

// prepare restores a replica that has applied nothing from a snapshot, if
// there is one that helps.
func (r *Replica) prepare(ctx context.Context, first, last, limit uint64) {
	if r.cfg.Checkpoints == nil {
		return
	}
	if incarnation, known := r.incarnation(ctx); known {
		r.restore(ctx, incarnation, first, last, limit)
	}
}

// incarnation is the log's own, however long the server takes to say; where a
// compaction cut the genesis, the base's. Without either any will do, for the
// log must hold what a snapshot ends with before anybody is answered.
func (r *Replica) incarnation(ctx context.Context) (incarnation string, known bool) {
	for {
		msg, err := r.cfg.Log.Message(ctx, 1)
		if err == nil {
			g, err := model.ParseGenesis(msg.Data)
			if err != nil {
				return "", false
			}
			return g.Incarnation, true
		}
		if errors.Is(err, bus.ErrNoMessage) {
			switch base, err := fleet.Base(ctx, r.cfg.Checkpoints); {
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
func (r *Replica) jump(ctx context.Context, gap *bus.GapError, first, last uint64) error {
	if r.cfg.Checkpoints == nil {
		return gap
	}
	applied := r.Applied()
	if !r.restore(ctx, r.core.incarnation(), max(first, gap.Got), last, math.MaxUint64) {
		return fmt.Errorf(
			"%w; no snapshot covers it (see lockstep snapshot ls): restore the log, or let a replica that has all of it "+
				"write one with lockstep snapshot put",
			gap,
		)
	}
	if applied > 0 {
		r.advise(
			"jumped",
			fmt.Sprintf(
				"the log holds nothing from %d to %d any more; this replica goes on from a snapshot, and whether the log ever "+
					"held what it had applied before cannot be checked",
				gap.Want, gap.Got-1,
			),
		)
	}
	return nil
}

// end finds the log's first and last sequence, however long the server takes
// to say.
func (r *Replica) end(ctx context.Context) (first, last uint64, err error) {
	for {
		first, last, err = r.cfg.Log.End(ctx)
		var denied *bus.PermissionError
		if err == nil || ctx.Err() != nil || errors.As(err, &denied) {
			return first, last, err
		}
		r.log.Warn("the log does not answer; trying on", "error", err)
		r.troubled(err) // until a tail reads it
		sleep(ctx, time.Second)
	}
}

// troubled raises and ends the advisory that the log can't be read.
func (r *Replica) troubled(err error) {
	if err == nil {
		r.endAdvice("log")
		return
	}
	r.advise("log", fmt.Sprintf("the log cannot be read, so nothing new is learned: %v", err))
}

// nameLoss says what a log lost that does not continue what was applied.
func (r *Replica) nameLoss(ctx context.Context, rolled *bus.RolledBackError) {
	if s := r.restored.Load(); s != nil && s.Seq == rolled.Applied {
		_ = r.setAside(ctx, *s, "the log does not hold the message that it ends with: it is of another history")
		return
	}
	r.advise("rolled-back", fmt.Sprintf("the log was rolled back: %v; folding it anew", rolled))
}

// checkGenesis refuses a log that was made for another contract.
func (r *Replica) checkGenesis(m *model.Message) error {
	if m.Subject != model.SubjectGenesis {
		return fmt.Errorf(
			"the log %s does not begin with a genesis but with %q: it is not one of Lockstep's", r.cfg.Stream,
			m.Subject,
		)
	}
	g, err := model.ParseGenesis(m.Data)
	if err != nil {
		return fmt.Errorf("the log %s: %w", r.cfg.Stream, err)
	}
	own := fleet.Identity{Contract: fleet.ContractOf(r.cfg.Spec)}
	if own.Differs(fleet.GenesisIdentity(g)) != 0 {
		return fmt.Errorf(
			"%w: %s was made with %.16s, this worker's spec is %.16s; start it with the spec that the log was made with (it "+
				"is in the log: nats stream get %[2]s 1), or give the new model a name of its own",
			ErrContract, r.cfg.Stream, g.Contract, own.Contract,
		)
	}
	return nil
}

// OnLog reports whether the log still holds the message that the replica
// applied last.
func (r *Replica) OnLog(ctx context.Context) (bool, error) {
	for {
		position := r.core.position()
		tip, err := r.cfg.Log.Message(ctx, position.Applied)
		if err != nil {
			return false, err
		}
		same := position.Check(tip)
		if r.core.position().Applied == position.Applied {
			return same, nil
		}
	}
}
