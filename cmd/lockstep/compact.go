package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lockstep/worker/fleet"
)

type compactOptions struct {
	connection
	force bool
	json  bool
}

// compacted is what compact --json prints.
type compacted struct {
	Base    uint64 `json:"base"`    // the sequence that the log begins with now
	Newest  uint64 `json:"newest"`  // of the newest snapshot
	Removed uint64 `json:"removed"` // messages
	Digest  string `json:"digest"`  // at the base
}

func compactCommand() *cobra.Command {
	var o compactOptions
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Cut the log's head, below a snapshot that is proven",
		Long: `Compact has the fleet write snapshots, folds the log itself from where it begins,
and goes on only if that gives the very same states, and if all live replicas
agree, at least two of them. Then it pins the second newest snapshot as what the
log begins with, and cuts the log below it. What is cut cannot be replayed any
more: receipts from before it can be verified no longer.`,
		Example: `  lockstep compact
  lockstep compact --force     # with a single replica`,
		Args: cobra.NoArgs,
		RunE: withHistory(
			&o.connection, "compact",
			func(cmd *cobra.Command, h *history, _ []string) error { return o.run(cmd, h) },
		),
	}
	o.addClientFlags(cmd)
	cmd.Flags().
		BoolVar(&o.force, "force", false, "go on without two live replicas that agree; never without the fold's own proof")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the result as JSON")
	return cmd
}

func (o *compactOptions) run(cmd *cobra.Command, h *history) error {
	ctx := cmd.Context()
	// Two new snapshots, or one if the last that the fleet wrote is in use:
	// the log is cut below the second newest.
	all, err := h.list(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s snapshotLine) bool { return s.Aside != "" || s.Base })
	var second, newest *fleet.Snapshot
	if len(all) > 0 {
		second = &all[len(all)-1].Snapshot
	} else if second, err = h.request(ctx, o.timeout); err != nil {
		return err
	}
	if newest, err = h.request(ctx, o.timeout); err != nil {
		return err
	}
	if err := o.agreed(cmd, h, newest); err != nil {
		return err
	}
	// The fold must reproduce both.
	m, err := h.start(ctx)
	if err != nil {
		return err
	}
	for _, s := range []*fleet.Snapshot{second, newest} {
		folded, err := h.foldTo(cmd, m, s.Seq, !o.json, nil)
		if err != nil {
			return fmt.Errorf("the log cannot be folded: %w; nothing was cut", err)
		}
		if !folded.Comparable(s.Attestation) || !folded.Same(s.Attestation) {
			return fmt.Errorf(
				"the log gives another state at sequence %d than the snapshot's: digest %.12s, and not %.12s; nothing was cut; "+
					"see lockstep verify",
				s.Seq, folded.Digest, s.Digest,
			)
		}
		if _, err := fleet.LoadSnapshot(ctx, h.Snapshots, h.spec, *s); err != nil {
			return fmt.Errorf("the snapshot of %d cannot be read back: %w; nothing was cut", s.Seq, err)
		}
	}
	if err := fleet.Pin(ctx, h.Checkpoints, *second, h.genesis); err != nil {
		return &exitError{exitUnreachable, fmt.Errorf("the base could not be pinned: %w; nothing was cut", err)}
	}
	if err := h.log.Cut(ctx, second.Seq); err != nil {
		return &exitError{exitUnreachable, fmt.Errorf("the log could not be cut: %w", err)}
	}
	if old := h.base; old != nil && old.Object != second.Object {
		if err := fleet.RemoveSnapshot(ctx, h.Checkpoints, h.Snapshots, *old); err != nil {
			return &exitError{
				exitUnreachable, fmt.Errorf("the log is cut, and the previous base could not be removed: %w", err),
			}
		}
	}
	result := compacted{Base: second.Seq, Newest: newest.Seq, Removed: second.Seq - h.first, Digest: second.Digest}
	if o.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
	}
	fmt.Fprintf(
		cmd.OutOrStdout(),
		"The log begins at sequence %d now, %d messages were cut; the newest snapshot is at %d.\n", result.Base,
		result.Removed, result.Newest,
	)
	return nil
}

// agreed wants all live replicas to attest the newest snapshot's state.
func (o *compactOptions) agreed(cmd *cobra.Command, h *history, newest *fleet.Snapshot) error {
	replicas, votes, err := h.attested(cmd.Context(), newest.Seq, o.timeout)
	if err != nil {
		return err
	}
	result := compareFleet(newest.Attestation, replicas, votes)
	var bad []string
	for _, r := range result.Replicas {
		if !r.Same {
			bad = append(bad, r.Replica+": "+r.Reason)
		}
	}
	switch {
	case o.force:
		return nil
	case len(bad) > 0:
		return fmt.Errorf(
			"not all live replicas agree, so nothing was cut: %s; see lockstep verify", strings.Join(bad, "; "),
		)
	case len(replicas) < 2:
		return errors.New(
			"a single replica is live, and nobody bears it out, so nothing was cut: start a second one, or use --force",
		)
	}
	return nil
}
