package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Notes are messages of which each subject holds one, whoever puts it first.
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

// Put stores data under a subject. It returns false if the subject has a
// note already, and an error if the stream is full or does not answer.
func (n *Notes) Put(ctx context.Context, subject string, data []byte) (stored bool, err error) {
	err = n.conn.do(ctx, subject, apiTimeout, func(ctx context.Context) error {
		_, err := n.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: data}, jetstream.WithExpectLastSequencePerSubject(0))
		return err
	})
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return false, nil
	}
	return err == nil, named(err)
}
