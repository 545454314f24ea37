package serve

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

// tally is a counter that says what the test has it say.
type tally struct {
	total int64
	err   error
}

func (c *tally) Add(context.Context, string, int64) (int64, error) { return c.total, c.err }
func (c *tally) Value(context.Context) (int64, error)              { return c.total, c.err }

// TestPredictedNeverFalls: not when predictions are given up, not when a
// server that lags behind answers, not when the counter was restored, and not
// past the largest number.
func TestPredictedNeverFalls(t *testing.T) {
	c := &tally{}
	p := &predicted{counter: c, log: slog.New(slog.DiscardHandler)}
	high := int64(0)
	check := func(when string, want int64) {
		t.Helper()
		got := p.value()
		if got != want || got < high {
			t.Errorf("%s: got %d, want %d; it was %d before", when, got, want, high)
		}
		high = max(high, got)
	}
	for range 30 {
		p.add()
	}
	check("counted", 30)
	c.total = 100
	p.flush(t.Context())
	check("the fleet's total", 100)
	for range 20 {
		p.add()
	}
	c.err = errors.New("no answer")
	p.flush(t.Context())
	check("given up", 120)
	if got := p.given(); got != 20 {
		t.Errorf("given up: got %d, want 20", got)
	}
	c.err = nil
	p.read(t.Context())
	check("read again", 120)
	c.total = 7
	p.read(t.Context())
	check("restored from a backup", 120)
	c.total = 121
	p.read(t.Context())
	check("caught up", 121)
	c.total = 1<<63 - 1
	p.read(t.Context())
	p.add()
	check("at the end of the numbers", 1<<63-1)
}
