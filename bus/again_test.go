package bus

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestWhatEndsATail: what the log itself, or the one who reads it, says for
// good; everything else starts it again.
func TestWhatEndsATail(t *testing.T) {
	failure := errors.New("failure")
	for _, c := range []struct {
		err, failure error
		again        bool
	}{
		{errRestart, nil, true},
		{nats.ErrTimeout, nil, true},
		{fmt.Errorf("wrapped: %w", &GapError{2, 3}), nil, false},
		{fmt.Errorf("wrapped: %w", &RolledBackError{2, 0}), nil, false},
		{fmt.Errorf("wrapped: %w", &PermissionError{"Publish", "x"}), nil, false},
		{failure, failure, false},
	} {
		l := &tail{log: &Log{conn: &Conn{Conn: &nats.Conn{}}}, failure: c.failure}
		if got := l.again(c.err); got != c.again {
			t.Errorf("%v: starts anew %t", c.err, got)
		}
	}
}
