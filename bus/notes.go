package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Notes are messages of which each subject holds one, anyone who puts it first.
type Notes struct {
	conn *Conn
	js   jetstream.JetStream
}

// Limits of the notes.
const (
	notesAge   = 24 * time.Hour
	notesBytes = 64 << 20
)

func notesStream(stream, subject string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: stream, Description: "what the fleet reports, once each", Subjects: []string{subject},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1,
		MaxAge: notesAge, MaxBytes: notesBytes, Replicas: replicas, AllowDirect: true,
	}
}

// OpenNotes binds the stream of the notes on a subject and below, and creates
// it if there is none.
func OpenNotes(ctx context.Context, conn *Conn, stream, subject string, replicas int) (*Notes, error) {
	js, err := conn.jetStream()
	if err != nil {
		return nil, err
	}
	_, err = bindOrCreate(ctx, conn, js, notesStream(stream, subject, replicas))
	if err != nil {
		return nil, fmt.Errorf("notes %s: %w", stream, err)
	}
	return &Notes{conn, js}, nil
}

// Put stores data under a subject. It returns false if the subject has a note
// already. What may pass, such as a cluster without a leader, is tried again
// until ctx ends; an error says that the stream is full (ErrFull), or that it
// will not take this note.
func (n *Notes) Put(ctx context.Context, subject string, data []byte) (stored bool, err error) {
	return n.conn.putFirst(ctx, subject, transient, func(ctx context.Context) error {
		_, err := n.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: data}, jetstream.WithExpectLastSequencePerSubject(0))
		return err
	})
}

// putFirst has put write to a subject that must be empty, again while the
// error is one that again reports to be worth it. It returns false if
// somebody else was first.
func (c *Conn) putFirst(ctx context.Context, subject string, again func(error) bool,
	put func(context.Context) error) (first bool, err error) {
	for {
		err := c.do(ctx, subject, apiTimeout, put)
		var api *jetstream.APIError
		taken := errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
		switch {
		case err == nil:
			return true, nil
		case taken || errors.Is(err, jetstream.ErrKeyExists):
			return false, nil
		case !again(err):
			return false, named(err)
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("%w (%v)", ctx.Err(), err)
		case <-time.After(retryWait):
		}
	}
}
