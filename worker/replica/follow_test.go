package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// recorded is a log that delivers what it holds, asks halfway whether it may
// begin again there, and then ends, or waits for more.
type recorded struct {
	Log
	messages []bus.Message
	live     bool
	same     bool  // what the check said
	end      error // of one that is not live
}

func (r *recorded) Tail(ctx context.Context, from bus.Position, deliver func(*bus.Message) error) error {
	for i := range r.messages {
		if err := deliver(&r.messages[i]); err != nil {
			return err
		}
		if i == len(r.messages)/2 {
			r.same = from.Check(&r.messages[i])
		}
	}
	if r.live {
		<-ctx.Done()
		return ctx.Err()
	}
	return r.end
}

func record(n, size int) *recorded {
	r := &recorded{end: errors.New("the end")}
	for i := range n {
		data := fmt.Appendf(nil, "%*d", size, i)
		r.messages = append(
			r.messages,
			bus.Message{Seq: uint64(i + 1), Subject: "penguins.learn", Data: data, Time: time.Now(), Pending: uint64(n - i)},
		)
	}
	return r
}

// TestFollowFoldsInOrder: whatever was read is folded in its order, before the
// log is asked whether it still holds what was folded last, and before follow
// returns.
func TestFollowFoldsInOrder(t *testing.T) {
	t.Parallel()
	const n = 5 * aheadEntries
	r, applied := record(n, 1), uint64(0)
	position := bus.Position{Check: func(msg *bus.Message) bool { return msg.Seq == applied }}
	err := follow(t.Context(), r, position, model.DefaultSpec(), func(e *entry) error {
		if e.Seq != applied+1 || e.pending != n-applied || e.Subject != model.SubjectLearn {
			return fmt.Errorf("%d (%s), with %d behind it, follows %d", e.Seq, e.Subject, e.pending, applied)
		}
		applied++
		return nil
	})
	if err != r.end || !r.same || applied != n {
		t.Errorf("%v after %d messages; halfway the check said %t", err, applied, r.same)
	}
}

// TestFollowEndsWithTheFold: once the fold fails nothing more is folded, and
// its error is the one that counts.
func TestFollowEndsWithTheFold(t *testing.T) {
	t.Parallel()
	failure := errors.New("failure")
	for _, at := range []uint64{1, aheadEntries, 3 * aheadEntries} {
		r, applied := record(3*aheadEntries, 1), uint64(0)
		r.live = true
		position := bus.Position{Check: func(*bus.Message) bool { return true }}
		err := follow(t.Context(), r, position, model.DefaultSpec(), func(e *entry) error {
			if applied = e.Seq; applied == at {
				return failure
			}
			return nil
		})
		if err != failure || applied != at {
			t.Errorf("at %d: %v after %d messages", at, err, applied)
		}
	}
}

// TestFollowReadsSoFarAhead: a slow fold does not have the whole log in
// memory.
func TestFollowReadsSoFarAhead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, size, most int }{{3 * aheadEntries, 1, aheadEntries}, {100, aheadBytes / 8, 8}} {
		synctest.Test(t, func(t *testing.T) {
			r, a := record(c.n, c.size), newAhead(model.DefaultSpec())
			go func() {
				for i := range r.messages {
					if a.read(&r.messages[i]) != nil {
						return
					}
				}
			}()
			synctest.Wait()
			if a.count != c.most {
				t.Errorf("%d messages of %d bytes are read ahead, want %d", a.count, c.size, c.most)
			}
			a.fail(errEnough)
		})
	}
}
