package main

import (
	"bytes"
	"errors"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/model"
)

// sighting is where the log has an event.
type sighting struct {
	seq   uint64 // of its message, 0 if it is not there
	since int    // events from that message on
}

// find reads the whole log for events by their own ids.
func (h *history) find(cmd *cobra.Command, ids [][]byte, show bool) ([]sighting, error) {
	ctx := cmd.Context()
	f := finder{
		decoder: model.NewDecoder(h.spec), subject: h.name + "." + model.SubjectLearn, ids: ids,
		found: make([]sighting, len(ids)),
	}
	from := bus.Position{Check: func(*bus.Message) bool { return true }}
	if h.first > 1 { // a tail begins behind a message that is there
		msg, err := h.log.Message(ctx, h.first)
		if err != nil {
			return nil, &exitError{exitUnreachable, err}
		}
		f.look(msg)
		from.Applied = h.first
	}
	if from.Applied >= h.last {
		return f.found, nil
	}
	bar := progress(cmd, "looking", int64(h.last), show)
	defer bar.Finish()
	err := h.log.Tail(ctx, from, func(msg *bus.Message) error {
		f.look(msg)
		bar.Set64(int64(msg.Seq))
		if msg.Seq >= h.last {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		return nil, err
	}
	return f.found, nil
}

// finder looks for ids in messages.
type finder struct {
	decoder *model.Decoder
	subject string
	ids     [][]byte
	found   []sighting
}

func (f *finder) look(msg *bus.Message) {
	if msg.Subject != f.subject {
		return
	}
	wanted := false
	for i, id := range f.ids {
		// Decoding takes much longer than looking for the bytes, which are in
		// the message as they are: ids of strangers may be escaped there.
		wanted = wanted || f.found[i].seq > 0 || bytes.Contains(msg.Data, id) || bytes.IndexByte(id, '"') >= 0 ||
			bytes.IndexByte(id, '\\') >= 0
	}
	if !wanted {
		return
	}
	events, _, _ := f.decoder.Learn(msg.Data) // what is bad as a whole has none
	for i, id := range f.ids {
		for _, e := range events {
			if f.found[i].seq == 0 && bytes.Equal(e.ID, id) {
				f.found[i].seq = msg.Seq
			}
		}
		if f.found[i].seq > 0 {
			f.found[i].since += len(events)
		}
	}
}
