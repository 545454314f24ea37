package bus

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestPullTellsAHoleFromALoss: deliveries lost on their way leave a hole in
// the consumer's own count, and none in the log.
func TestPullTellsAHoleFromALoss(t *testing.T) {
	delivery := func(seq, count int) *nats.Msg {
		return &nats.Msg{Subject: "m.learn", Reply: fmt.Sprintf("$JS.ACK.M.c.1.%d.%d.1.0", seq, count)}
	}
	for _, c := range []struct {
		name string
		sent []*nats.Msg
		want error
	}{
		{"none", []*nats.Msg{delivery(1, 1), delivery(2, 2)}, nil},
		{"a hole in the log", []*nats.Msg{delivery(1, 1), delivery(3, 2)}, &GapError{Want: 2, Got: 3}},
		{"a loss", []*nats.Msg{delivery(1, 1), delivery(3, 3)}, errRestart},
		{"a loss before a hole", []*nats.Msg{delivery(1, 1), delivery(4, 3)}, errRestart},
		{"a domain", []*nats.Msg{{Reply: "$JS.ACK.hub.account.M.c.1.1.1.1.0.token"}}, nil},
		{"no place", []*nats.Msg{{Reply: "$JS.ACK.M.c"}}, errRestart},
	} {
		p := newPull(&tail{window: newWindow(), deliver: func(*Message) error { return nil }})
		p.asked = 10
		var err error
		for _, msg := range c.sent {
			if err = p.take(t.Context(), msg); err != nil {
				break
			}
		}
		var gap, want *GapError
		if errors.As(c.want, &want) {
			if !errors.As(err, &gap) || *gap != *want {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestNoRoomIsNotRetried: the other 503s pass by themselves.
func TestNoRoomIsNotRetried(t *testing.T) {
	for _, c := range []struct {
		code int
		full bool
	}{{10002, true}, {10023, true}, {10077, true}, {10008, false}} {
		err := &jetstream.APIError{Code: 503, ErrorCode: jetstream.ErrorCode(c.code)}
		if transient(err) == c.full || errors.Is(named(err), ErrFull) != c.full {
			t.Errorf("%d: retried %t, named %v", c.code, transient(err), named(err))
		}
	}
}

// TestOnlyAFirstRefusalIsSure that nothing is stored: an earlier attempt may
// have been, and its acknowledgement lost.
func TestOnlyAFirstRefusalIsSure(t *testing.T) {
	var sure *RefusedError
	refusal := &jetstream.APIError{Code: 400, ErrorCode: 10054}
	if err := refused(refusal, 1); !errors.As(err, &sure) || sure.ErrCode != 10054 {
		t.Errorf("the first attempt: %v", err)
	}
	for _, err := range []error{refused(refusal, 2), refused(&jetstream.APIError{Code: 503, ErrorCode: 10008}, 1), refused(context.DeadlineExceeded, 1)} {
		if errors.As(err, &sure) {
			t.Errorf("it may be stored: %v", err)
		}
	}
}
