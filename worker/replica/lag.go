package replica

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"lockstep/worker/fleet"
)

// How the log's end is watched.
const (
	endEvery    = time.Second // how often the log's end is asked for, if need be
	farBehind   = 1000        // messages; a replica that answers and is further behind for a while says so
	behindLooks = 5           // how many looks in a row raise that advisory, or end it
	endFailures = 5           // asks in a row without an answer, until that is an advisory
)

// lag is how many messages of the log the replica has not applied.
//
// A delivery carries where the log ended when it was sent. That grows old: a
// server that stores a burst may send its consumers nothing for a minute, and
// the last delivery before it says that nothing follows. So the end is asked
// for by itself, unless a delivery has just shown that the replica is there.
type lag struct {
	applied *atomic.Uint64 // the replica's sequence
	end     atomic.Uint64  // the log's last sequence, as last heard of
	atEnd   atomic.Bool    // since the last look, a delivery had nothing behind it
}

// messages is how many are not applied, as far as is known.
func (l *lag) messages() uint64 {
	end := l.end.Load()
	return end - min(end, l.applied.Load())
}

// delivered takes in that a message of the log came with so many behind it.
func (l *lag) delivered(seq, behind uint64) {
	end := seq + behind
	for known := l.end.Load(); end > known && !l.end.CompareAndSwap(known, end); {
		known = l.end.Load()
	}
	if behind == 0 {
		l.atEnd.Store(true)
	}
}

// look asks where the log ends, unless that is known. A log that was taken
// back ends earlier than it did.
func (l *lag) look(ctx context.Context, log Log) error {
	if l.atEnd.Swap(false) {
		return nil
	}
	known := l.end.Load()
	_, last, err := log.End(ctx)
	if err == nil {
		l.end.CompareAndSwap(known, last) // else a delivery came meanwhile, and knows better
	}
	return err
}

// Lag is how many messages of the log the replica has not applied, as far as
// is known.
func (r *Replica) Lag() uint64 { return r.lag.messages() }

// watchEnd keeps the lag true, and tells an operator of one that stays, until
// ctx ends.
func (r *Replica) watchEnd(ctx context.Context) {
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	far, failures := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.lag.look(ctx, r.cfg.Log); ctx.Err() != nil {
			return
		} else if err == nil {
			failures = 0
			r.endAdvice("log-end")
		} else if failures++; failures == endFailures {
			r.advise("log-end", fmt.Sprintf("the server does not say where the log ends, so how far this replica is behind "+
				"is not known: %v", err))
		}
		far = r.sayBehind(far)
		r.endNews()
	}
}

// sayBehind raises the advisory of a replica that answers and is far behind,
// and ends it. far is how many looks in a row spoke for a change.
func (r *Replica) sayBehind(far int) int {
	is := r.State() == fleet.Ready && r.lag.messages() > farBehind
	said := r.advisories.has("behind")
	switch {
	case is == said:
		return 0
	case far+1 < behindLooks:
		return far + 1
	case is:
		r.advise(
			"behind",
			fmt.Sprintf(
				"this replica is more than %d messages behind the log's end: it answers from an older state",
				farBehind,
			),
		)
	default:
		r.endAdvice("behind")
	}
	return 0
}
