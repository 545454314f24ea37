package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
)

// history is a model's log, and what its fleet keeps of it.
type history struct {
	fleet.Buckets // empty where no worker has made them
	name          string
	log           *bus.Log
	spec          *model.Spec
	base          *fleet.Snapshot // that the log begins with, nil if it is whole
	genesis       []byte
	first, last   uint64
}

// openHistory binds a model's log and its boards.
// What cannot be read in the boards is skipped, and named on standard error.
func openHistory(cmd *cobra.Command, nc *bus.Conn, name string) (*history, error) {
	ctx := cmd.Context()
	h := &history{name: name}
	var err error
	if h.log, err = bus.BindLog(ctx, nc, bus.LogConfig{Model: name}); err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	h.Buckets, err = fleet.BindBuckets(ctx, nc, name)
	if errors.Is(err, bus.ErrNoBoard) {
		h.Buckets = fleet.Buckets{}
	} else if err != nil {
		return nil, &exitError{exitUnreachable, err}
	} else {
		h.Buckets = h.Buckets.Reporting(name, nameSkipped(cmd.ErrOrStderr()))
		if h.base, err = fleet.Base(ctx, h.Checkpoints); err != nil {
			return nil, &exitError{exitUnreachable, err}
		}
	}
	if h.first, h.last, err = h.log.End(ctx); err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	h.genesis = h.log.Genesis()
	if h.genesis == nil && h.base != nil {
		h.genesis = h.base.Genesis
	}
	h.spec, err = genesisSpec(h.genesis)
	return h, err
}

// openFleet binds a model's log and its boards, which must be there.
func openFleet(cmd *cobra.Command, nc *bus.Conn, name string) (*history, error) {
	h, err := openHistory(cmd, nc, name)
	if err == nil && h.Snapshots == nil {
		err = &exitError{
			exitUnreachable,
			fmt.Errorf("no worker has kept checkpoints of %s yet: start one with lockstep worker", name),
		}
	}
	return h, err
}

// nameSkipped names each value of a bucket that cannot be read, once.
func nameSkipped(out io.Writer) func(bucket, below string, skipped []fleet.Unreadable) {
	named := map[string]bool{}
	return func(bucket, _ string, skipped []fleet.Unreadable) {
		for _, u := range skipped {
			if key := bucket + "/" + u.Key; !named[key] {
				named[key] = true
				fmt.Fprintf(out, "skipped in the bucket %s: %s\n", bucket, printable.Text(u.String()))
			}
		}
	}
}

// start is the model that a replay of the whole log begins with: one that has
// learned nothing, or where a compaction cut the log's head the base.
func (h *history) start(ctx context.Context) (*model.Model, error) {
	if h.first <= 1 {
		return model.New(h.spec)
	}
	if h.base == nil {
		return nil, fmt.Errorf(
			"the log begins at %d, and no snapshot is pinned as what it begins with: it was not cut by lockstep compact",
			h.first,
		)
	}
	m, err := fleet.LoadSnapshot(ctx, h.Snapshots, h.spec, *h.base)
	if err != nil {
		return nil, fmt.Errorf("the base at %d, which the log begins with: %w", h.base.Seq, err)
	}
	return m, nil
}

// foldTo folds the log into a model to a sequence, and shows how far it is.
func (h *history) foldTo(
	cmd *cobra.Command, m *model.Model, seq uint64, show bool,
	seen func(*model.Model),
) (fleet.Attestation, error) {
	if m.Seq() == seq {
		return fleet.Attest(m), nil
	}
	bar := progress(cmd, "folding the log", int64(seq-m.Seq()), show)
	from := m.Seq()
	defer bar.Finish()
	return replica.FoldTo(cmd.Context(), h.log, m, seq, func(m *model.Model) {
		bar.Set64(int64(m.Seq() - from))
		if seen != nil {
			seen(m)
		}
	})
}

// checkpoint has every replica attest, and write a snapshot if asked to. It
// returns the sequence.
func (h *history) checkpoint(ctx context.Context, snapshot bool) (uint64, error) {
	var data []byte
	if snapshot {
		data = []byte(`{"snapshot":true}`)
	}
	ack, err := h.log.Append(ctx, h.name+"."+model.SubjectCheckpoint, bus.NewID(), data)
	if err != nil {
		return 0, &exitError{exitUnreachable, fmt.Errorf("the checkpoint could not be appended: %w", err)}
	}
	return ack.Seq, nil
}

// genesisSpec is the spec that a log was made with.
func genesisSpec(genesis []byte) (*model.Spec, error) {
	if genesis == nil {
		return nil, errors.New(
			"the log's first message is gone, and with it its spec: it was cut, and not by lockstep compact",
		)
	}
	g, err := model.ParseGenesis(genesis)
	if err != nil {
		return nil, err
	}
	return g.ParseSpec()
}
