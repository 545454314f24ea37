package bus

import (
	"testing"
	"time"
)

// TestWindowFollowsTheMessages: a budget of bytes, in messages of their mean
// size, within bounds; what dries up gets more.
func TestWindowFollowsTheMessages(t *testing.T) {
	w := newWindow()
	for range 1000 {
		if w.took(400, w.size()) {
			t.Fatal("small messages are too much")
		}
	}
	small := w.size()
	if small < 1000 || small > firstBudget/400+100 {
		t.Errorf("%d messages of 400 bytes are asked for, the budget is %d bytes", small, firstBudget)
	}
	w.grow()
	if got := w.size(); got < 3*small {
		t.Errorf("a pipe that ran dry gets %d messages after %d", got, small)
	}
	for range 100 {
		w.grow()
	}
	if got := w.size(); got > maxWindow || float64(got)*w.mean > 1.01*maxBudget {
		t.Errorf("%d messages of %.0f bytes are asked for at most", got, w.mean)
	}
	for range 1000 {
		w.took(300_000, 1)
	}
	if got := w.size(); got > maxBudget/290_000 || got < minWindow {
		t.Errorf("%d messages of 300 kB are asked for", got)
	}
}

// TestTooMuchOnItsWay: large messages after small ones are more than a server
// holds for a client; a few of them are not.
func TestTooMuchOnItsWay(t *testing.T) {
	w := newWindow()
	for range heavyRun - 1 {
		if w.took(1<<20, 100) {
			t.Fatal("a few large messages are too much")
		}
	}
	if !w.took(1<<20, 100) {
		t.Errorf("%d MiB on their way are not too much", 100)
	}
	if w.took(400, 100) || w.took(1<<20, 2) {
		t.Error("what is small again is too much")
	}
}

// TestFlowFindsAPipeThatRunsDry: for a quarter of a round.
func TestFlowFindsAPipeThatRunsDry(t *testing.T) {
	for wait, want := range map[time.Duration]bool{5 * time.Millisecond: false, 20 * time.Millisecond: true} {
		now := time.Unix(0, 0)
		f := flow{now: func() time.Time { return now }}
		f.asked(10)
		f.turn(1, 20) // a round that ends at 20
		f.asked(20)
		if !f.atEnd(10) || f.atEnd(11) {
			t.Error("the ends of the requests are not known")
		}
		f.waited(wait)
		now = now.Add(40 * time.Millisecond)
		if f.turn(20, 30) {
			t.Error("the round is over before its last message came")
		}
		if got := f.turn(21, 30); got != want {
			t.Errorf("dry for %s of 40 ms: %v, want %v", wait, got, want)
		}
	}
}
