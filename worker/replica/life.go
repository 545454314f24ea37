package replica

import (
	"errors"
	"fmt"
	"math"

	"lockstep/bus"
	"lockstep/worker/fleet"
)

// life is the life cycle of a replica: which state it is in, what it waits
// for, and what has to be done next. It is a pure state machine: step takes an
// event and returns the effects that the caller is to carry out, in order. It
// does no I/O, knows no clock, and belongs to one goroutine, the replica's
// owner. All others send the owner events, and read the Standing that it
// publishes.
//
// A replica replays the log in attempts, one at a time. An attempt looks where
// the log ends, restores a snapshot if one helps, and applies messages until
// it is ended, or fails.
//
//	state       event               becomes      effects
//	----------  ------------------  -----------  ---------------------------------------------
//	            started             restoring    show, begin
//	restoring   began               replaying    show
//	replaying   fit (see below)     ready        join, show
//	ready       fell behind         replaying    show, leave
//	any         doubted             the same     recheck
//	any         suspected           the same     interrupt; show; when the attempt has ended:
//	                                restoring    close, leave, show, begin afresh
//	any         other log           restoring    close, leave, show, begin afresh
//	any         hole                restoring    close, leave, show, begin behind the hole
//	any         condemned           quarantined  leave, show; it goes on replaying
//	any         panicked            failed       close, leave, show
//	any         could not go on     the same     close, leave, finish
//	any         stop asked for      draining     show, leave, close, interrupt
//	draining    attempt ended       stopped      finish; the owner shows it last
//
// A replica is fit to answer when it is replaying, the log was seen to hold
// the message that it applied last, no trial is open, and it has applied the
// target: what the log held when the attempt began, or what the fleet has
// applied. "Any" is every state before draining. Quarantined and failed are
// for good: only a stop leaves them.
type life struct {
	state fleet.State
	doubt doubt

	target    uint64 // once this is applied, the replica is caught up
	applied   uint64 // as the owner last saw it
	confirmed bool   // the log holds what was applied last
	behind    bool   // left the group because it fell behind the fleet

	running bool          // an attempt is under way
	afresh  bool          // the next attempt begins with nothing learned
	hole    *bus.GapError // the next attempt goes on behind it
	folds   int           // how often the replica was put on trial and folded again
	epoch   int           // how often the log turned out to be another
	fold    int           // the number of the attempt under way; less than folds until the next begins
	base    uint64        // no snapshot after this one is trusted while it is on trial
	err     error         // why the replica ends; nil if it was asked to
	over    bool          // the owner returns
}

// doubt says how far a replica that is under suspicion has come.
type doubt int

const (
	noDoubt   doubt = iota
	refolding       // folds again, and has not reached the disputed checkpoint
	refolded        // has attested it again, and waits for the fleet's ruling
)

func (t doubt) String() string { return [...]string{"", "refolding", "refolded"}[t] }

// plan is what an attempt sets out to do.
type plan struct {
	afresh bool          // forget what was learned
	limit  uint64        // no snapshot after this sequence may be restored
	hole   *bus.GapError // go on from a snapshot behind it; nil for a replay from where the replica is
	fold   int           // the number of the fold, for attestations
	epoch  int           // of the log that is read
}

// Standing is what a replica's owner publishes of its life: a value that never
// changes, so that it can be read from any goroutine.
type Standing struct {
	State     fleet.State
	Suspended bool   // on trial: must not answer
	Refolding bool   // on trial, and has not reached the disputed checkpoint again
	Target    uint64 // once this is applied, the replica is caught up
	Folds     int    // how often it was put on trial and folded again
	Fold      int    // the number of the fold under way; less than Folds until the next has begun
	Epoch     int    // how often the log turned out to be another
}

// Votes reports whether the replica's attestations count: it serves, or would
// but for a trial.
func (s *Standing) Votes() bool {
	return s.State == fleet.Ready || s.Suspended && s.State != fleet.Quarantined && s.State != fleet.Failed
}

// Events. Each is sent by one goroutine, which its comment names.
type (
	started   struct{}                // the owner
	began     struct{ target uint64 } // an attempt that is about to replay; the log's end
	logEnds   struct{ last uint64 }   // the heartbeat: the log ends there now
	confirmed struct{ same bool }     // an attempt: whether the log holds what was applied last
	reached   struct{}                // the fold: the target is applied
	fleetAt   struct {                // the heartbeat: the furthest sequence of those that vote
		furthest uint64
	}
	suspected  struct{ base uint64 } // the audit: a majority, or no one, agrees with this replica
	reproduced struct{}              // the audit: the disputed checkpoint was attested again
	cleared    struct{}              // the audit: the trial is over, and the replica may answer
	condemned  struct{ why string }  // the audit: it is not to be trusted
	doubted    struct{}              // the audit: another replica has read another log
	joined     struct{}              // the owner: the group was joined
	unjoined   struct{ err error }   // the owner: the group could not be joined
	ended      struct {              // an attempt, as its last word
		err   error
		final bool // whatever it is, the replica cannot go on
	}
	stopAsked struct{} // the owner
)

// effect is something that the owner is to do.
type effect int

// The effects.
const (
	show        effect = iota // publish the standing
	beginReplay               // start the attempt of life.plan
	interrupt                 // end the attempt that is under way
	join                      // answer requests, and tell joined or unjoined
	recheck                   // see again whether the log holds what was applied
	leave                     // answer what was accepted, and no more
	closeWaits                // end all requests that wait for a sequence
	finish                    // the owner returns life.err
)

func (e effect) String() string {
	return [...]string{"show", "begin", "interrupt", "join", "recheck", "leave", "close", "finish"}[e]
}

// step takes an event. applied is the sequence that the replica has applied by
// now. The effects are to be carried out in order, before the next event.
func (l *life) step(event any, applied uint64) []effect {
	l.applied = applied
	if l.over {
		return nil
	}
	out := l.handle(event)
	if l.fit() {
		out = append(out, join)
	}
	return out
}

// fit reports whether the replica is fit to answer, and does not yet.
func (l *life) fit() bool {
	going := !l.over && l.err == nil
	return going && l.state == fleet.Replaying && l.confirmed && l.doubt == noDoubt && l.applied >= l.target
}

func (l *life) handle(event any) []effect {
	switch e := event.(type) {
	case stopAsked:
		return l.drain()
	case ended:
		l.running = false
		return l.ended(e)
	}
	if l.state == fleet.Draining || l.state == fleet.Failed {
		return nil // nothing else changes it
	}
	switch e := event.(type) {
	case started:
		return l.begin()
	case began:
		l.target, l.confirmed = e.target, false
		return l.become(fleet.Replaying)
	case confirmed:
		l.confirmed = e.same
	case reached: // fit sees to it
	case doubted:
		return []effect{recheck}
	case logEnds:
		if l.state == fleet.Replaying && l.applied < l.target {
			l.target = min(l.target, e.last)
		}
	case fleetAt:
		return l.follow(e.furthest)
	case joined:
		l.behind = false
		return l.become(fleet.Ready)
	case unjoined:
		l.err = e.err
		return []effect{interrupt}
	case suspected, reproduced, cleared, condemned:
		return l.judged(e)
	default:
		panic(fmt.Sprintf("no such event: %T", e))
	}
	return nil
}

// follow takes in how far the furthest replica is.
func (l *life) follow(furthest uint64) []effect {
	near := furthest - min(furthest, fleet.MaxBehind/10)
	switch {
	case l.state == fleet.Ready && furthest > l.applied+fleet.MaxBehind:
		l.behind, l.target = true, furthest
		return append(l.become(fleet.Replaying), leave)
	case l.behind: // the furthest one may be gone, or be further
		l.target = near
	case l.state == fleet.Replaying && l.doubt == noDoubt: // the log grew since this one looked
		l.target = max(l.target, near)
	}
	return nil
}

// judged takes in what the audit found.
func (l *life) judged(event any) []effect {
	switch e := event.(type) {
	case suspected:
		l.doubt, l.base, l.afresh = refolding, e.base, true
		l.folds++
		return []effect{interrupt, show}
	case reproduced:
		if l.doubt == refolding {
			l.doubt = refolded
		}
	case cleared:
		l.doubt = noDoubt
	case condemned:
		l.doubt = noDoubt
		return append([]effect{leave}, l.become(fleet.Quarantined)...)
	}
	return []effect{show}
}

// ended takes in that the attempt has ended, and why.
func (l *life) ended(e ended) []effect {
	var panicked *PanicError
	var rolled *bus.RolledBackError
	var gap *bus.GapError
	switch {
	case l.state == fleet.Draining:
		return l.finish(nil)
	case errors.As(e.err, &panicked):
		return append([]effect{closeWaits, leave}, l.become(fleet.Failed)...)
	case l.err != nil:
		return l.finish(l.err)
	case l.afresh:
	case e.final:
		return l.finish(e.err)
	case errors.As(e.err, &rolled):
		l.epoch++
		l.afresh = true
	case errors.As(e.err, &gap):
		l.hole = gap
	case e.err != nil:
		return l.finish(e.err)
	}
	return append([]effect{closeWaits, leave}, l.begin()...)
}

// begin starts an attempt.
func (l *life) begin() []effect {
	l.running, l.confirmed = true, false
	return append(l.become(fleet.Restoring), beginReplay)
}

// plan is what the attempt that begins now sets out to do; the next is not of
// the same plan.
func (l *life) plan() plan {
	p := plan{afresh: l.afresh, hole: l.hole, limit: math.MaxUint64, fold: l.folds, epoch: l.epoch}
	if l.doubt != noDoubt && p.hole == nil {
		p.limit = l.base
	}
	l.afresh, l.hole, l.fold = false, nil, l.folds
	return p
}

// drain begins to stop: what was accepted is answered while the attempt goes
// on.
func (l *life) drain() []effect {
	if l.state == fleet.Draining {
		return nil
	}
	l.state = fleet.Draining
	out := []effect{show, leave, closeWaits}
	if l.running {
		return append(out, interrupt)
	}
	return append(out, l.finish(nil)...)
}

func (l *life) finish(err error) []effect {
	l.over, l.err = true, err
	if err == nil {
		return []effect{finish}
	}
	return []effect{closeWaits, leave, finish}
}

// become changes the state, and shows it. A quarantined replica goes through
// the same states, and shows none of them.
func (l *life) become(s fleet.State) []effect {
	if l.state != fleet.Quarantined || s == fleet.Failed {
		l.state = s
	}
	return []effect{show}
}

// standing is what is shown.
func (l *life) standing() *Standing {
	return &Standing{
		State: l.state, Suspended: l.doubt != noDoubt, Refolding: l.doubt == refolding,
		Target: l.target, Folds: l.folds, Fold: l.fold, Epoch: l.epoch,
	}
}
