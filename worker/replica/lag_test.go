package replica

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/worker/fleet"
)

// starving is a log that stores and delivers nothing, as a server does to its
// consumers while it stores a burst.
type starving struct {
	Log
	mu   sync.Mutex
	last uint64 // guarded by mu
	err  error  // guarded by mu
	asks int    // guarded by mu
}

func (s *starving) End(context.Context) (first, last uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks++
	return 1, s.last, s.err
}

func (s *starving) set(last uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.err = last, err
}

// watched runs what watches the log's end of a replica that is ready at 3. It
// returns the log, and a function that sums up what was published of a kind.
func watched(t *testing.T) (*lone, *starving, func(kind string) string) {
	l := alone(t)
	s := &starving{last: 3}
	l.cfg.Log = s
	var mu sync.Mutex
	var published []string
	l.cfg.Advise = func(subject string, data []byte) {
		var said struct {
			Type  string `json:"type"`
			Ended bool   `json:"ended"`
		}
		if err := json.Unmarshal(data, &said); err != nil || subject != "penguins.advisory."+said.Type {
			t.Errorf("got %s on %s: %v", data, subject, err)
		}
		text := said.Type + " begins"
		if said.Ended {
			text = said.Type + " ends"
		}
		mu.Lock()
		defer mu.Unlock()
		published = append(published, text)
	}
	l.fold(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go l.watchEnd(ctx)
	return l, s, func(kind string) string {
		mu.Lock()
		defer mu.Unlock()
		of := slices.DeleteFunc(slices.Clone(published), func(p string) bool { return !strings.HasPrefix(p, kind+" ") })
		return strings.Join(of, ", ")
	}
}

// status is what the replica says of itself.
func (l *lone) status() (s fleet.Status) {
	l.Describe(&s)
	return s
}

// wait lets some looks at the log's end pass.
func wait(looks int) {
	time.Sleep(time.Duration(looks)*endEvery + endEvery/2)
	synctest.Wait()
}

// TestBehindIsSaidThoughNothingIsDelivered: the log's end is asked for, and
// every place that has a lag has that one. Who stays behind says so in an
// advisory, which ends once the replica is no more behind.
func TestBehindIsSaidThoughNothingIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, published := watched(t)
		wait(1) // which the last delivery spares
		s.set(50_003, nil)
		wait(1)
		if got, want := l.status().Lag, uint64(50_000); got != want {
			t.Errorf("after a look the status says lag %d, want %d", got, want)
		}
		if got, want := l.heartbeat().Lag, uint64(50_000); got != want {
			t.Errorf("after a look the heartbeat says lag %d, want %d", got, want)
		}
		if got := published("behind"); got != "" {
			t.Errorf("after one look an advisory was published: %s", got)
		}
		wait(behindLooks)
		if got := l.status().Advisory; !strings.Contains(got, "more than 1000 messages behind") {
			t.Errorf("the advisory is %q, want how far it is behind", got)
		}
		s.set(3, nil) // taken back
		wait(behindLooks + 1)
		if got := l.status(); got.Lag != 0 || got.Advisory != "" {
			t.Errorf("once caught up: lag %d, advisory %q, want neither", got.Lag, got.Advisory)
		}
		if got, want := published("behind"), "behind begins, behind ends"; got != want {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}

// TestAReplicaThatReplaysIsNotBehind: its state says it.
func TestAReplicaThatReplaysIsNotBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, published := watched(t)
		l.begin(9)
		s.set(50_003, nil)
		wait(2 * behindLooks)
		if got := published("behind"); got != "" {
			t.Errorf("published %q, want nothing", got)
		}
		if got := l.Unready(); !strings.Contains(got, "50000 messages to go") {
			t.Errorf("it is unready because %q, want 50000 messages to go", got)
		}
	})
}

// TestTheEndIsNotAskedForWhileItIsKnown: a delivery with nothing behind it
// says where the log ends.
func TestTheEndIsNotAskedForWhileItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := watched(t)
		wait(0)
		for seq := uint64(4); seq < 10; seq++ {
			s.set(seq, nil)
			l.fold(t, seq)
			time.Sleep(endEvery) // one look
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.asks != 0 {
			t.Errorf("the log's end was asked for %d times, want 0", s.asks)
		}
	})
}

// TestALogWhoseEndIsNotSaid: how far the replica is behind is not known, and
// that is said until it is.
func TestALogWhoseEndIsNotSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, published := watched(t)
		s.set(3, errors.New("no leader"))
		wait(endFailures + 1)
		if got := l.status().Advisory; !strings.Contains(got, "no leader") {
			t.Errorf("the advisory is %q, want why the end is not known", got)
		}
		s.set(3, nil)
		wait(1)
		if got := l.status().Advisory; got != "" {
			t.Errorf("the advisory is %q, want none", got)
		}
		if got, want := published("log-end"), "log-end begins, log-end ends"; got != want {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}
