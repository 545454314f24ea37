package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Counter is a JetStream distributed counter (ADR-49): a number that many
// add to.
type Counter struct {
	conn    *Conn
	stream  jetstream.Stream
	subject string
}

// counterKept is how many messages a counter keeps. Keeping but one, a retry
// that comes late counts twice.
const counterKept = 10_000

func counterStream(stream, subject string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: stream, Description: "a counter of the fleet", Subjects: []string{subject},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxMsgsPerSubject: counterKept,
		Duplicates: duplicateWindow, Replicas: replicas, AllowDirect: true, AllowMsgCounter: true,
	}
}

// OpenCounter binds a counter's stream, and creates it if there is none.
func OpenCounter(ctx context.Context, conn *Conn, stream, subject string, replicas int) (*Counter, error) {
	js, err := conn.jetStream()
	if err != nil {
		return nil, err
	}
	bound, err := bindOrCreate(ctx, conn, js, counterStream(stream, subject, replicas))
	if err != nil {
		var api *jetstream.APIError
		if errors.As(err, &api) {
			err = fmt.Errorf("%w (a counter needs nats-server 2.12 or later)", err)
		}
		return nil, fmt.Errorf("counter %s: %w", stream, err)
	}
	return &Counter{conn, bound, subject}, nil
}

// counted is the body that the server gives a counter's messages, and what
// its acknowledgement holds.
type counted struct {
	Val string `json:"val"`
}

// total is the value, which somebody may have pushed past the largest int64:
// that is where it stays then.
func (c counted) total() (int64, error) {
	n, err := strconv.ParseInt(c.Val, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		err = nil
	}
	return n, err
}

// Add adds n under an id and returns the new total. It retries under the
// same id until ctx ends, which must be within the duplicate window: past it
// a retry would count twice.
func (c *Counter) Add(ctx context.Context, id string, n int64) (int64, error) {
	msg := nats.NewMsg(c.subject)
	msg.Header.Set("Nats-Incr", strconv.FormatInt(n, 10))
	msg.Header.Set(nats.MsgIdHdr, id)
	for {
		total, duplicate, err := c.attempt(ctx, msg)
		if err == nil && duplicate {
			return c.Value(ctx) // a duplicate's acknowledgement has no total
		}
		if err == nil || !transient(err) {
			return total, err
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w (%v)", ctx.Err(), err)
		case <-time.After(retryWait):
		}
	}
}

func (c *Counter) attempt(ctx context.Context, msg *nats.Msg) (total int64, duplicate bool, err error) {
	err = c.conn.do(ctx, c.subject, attemptTimeout, func(ctx context.Context) error {
		answer, err := c.conn.RequestMsgWithContext(ctx, msg)
		if err != nil {
			return err
		}
		var ack struct {
			counted
			Duplicate bool                `json:"duplicate"`
			Error     *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(answer.Data, &ack); err != nil {
			return err
		}
		if ack.Error != nil {
			return ack.Error
		}
		if duplicate = ack.Duplicate; duplicate {
			return nil
		}
		total, err = ack.total()
		return err
	})
	return total, duplicate, err
}

// Value is the present total, 0 before anything was added.
func (c *Counter) Value(ctx context.Context) (total int64, err error) {
	err = c.conn.do(ctx, c.conn.api, attemptTimeout, func(ctx context.Context) error {
		msg, err := c.stream.GetLastMsgForSubject(ctx, c.subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			total = 0
			return nil
		} else if err != nil {
			return err
		}
		var body counted
		if err := json.Unmarshal(msg.Data, &body); err != nil {
			return err
		}
		total, err = body.total()
		return err
	})
	return total, err
}
