package model

import (
	"crypto/sha256"
	"encoding/binary"
)

// Entry is a message, read and hashed: all of the fold that needs no state.
// So it can be made ahead of the fold, and beside it. It is reused, and its
// buffers stay as large as the largest message that it had.
type Entry struct {
	Message
	content, tip [32]byte // see hash
	events       []Event
	names        []eventName // by event
	batch        bool
	err          error // the message is bad as a whole

	spec    *Spec
	decoder *Decoder
	hasher  hasher
}

// eventName is what tells an event's repeats.
type eventName struct {
	named   bool // it has an id, of its own or the message's
	key     idKey
	payload payload
}

// NewEntry makes an entry for the messages of a spec.
func NewEntry(s *Spec) *Entry { return &Entry{spec: s, decoder: NewDecoder(s)} }

// Read reads a message, whose bytes must not change until it was applied.
func (e *Entry) Read(msg Message) {
	e.Message = msg
	e.content, e.tip, e.hasher.buf = msg.hash(e.hasher.buf)
	e.events, e.batch, e.err, e.names = nil, false, nil, e.names[:0]
	if msg.Subject != SubjectLearn {
		return
	}
	e.events, e.batch, e.err = e.decoder.Learn(msg.Data)
	for i := range e.events {
		event, name := &e.events[i], eventName{}
		if len(event.Problems) == 0 {
			if name.key, name.named = e.hasher.key(msg.ID, i, event.ID); name.named {
				name.payload = e.hasher.payload(e.spec, event)
			}
		}
		e.names = append(e.names, name)
	}
}

// Events is how many events the message holds, bad ones too; one at least.
func (e *Entry) Events() int { return max(len(e.events), 1) }

// Hash identifies a message: its sequence, time, subject, id and data. Two logs
// that hold the same hash at the same place hold the same message there.
func (msg *Message) Hash() [32]byte {
	_, tip, _ := msg.hash(nil)
	return tip
}

// hash is Hash, and before it the hash of what the message says, with a buffer
// to reuse.
func (msg *Message) hash(buf []byte) (content, tip [32]byte, _ []byte) {
	buf = binary.LittleEndian.AppendUint64(buf[:0], uint64(len(msg.Subject)))
	buf = append(buf, msg.Subject...)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(len(msg.ID)))
	buf = append(buf, msg.ID...)
	buf = append(buf, msg.Data...)
	content = sha256.Sum256(buf)
	buf = binary.LittleEndian.AppendUint64(buf[:0], msg.Seq)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(msg.Time))
	buf = append(buf, content[:]...)
	return content, sha256.Sum256(buf), buf
}
