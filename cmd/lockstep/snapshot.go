package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/cmd/lockstep/internal/rows"
	"lockstep/cmd/lockstep/internal/terminal"
	"lockstep/model"
	"lockstep/worker/fleet"
)

func snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "List, fetch and make snapshots, from which workers start cold",
		Long: `A snapshot is a replica's encoded state at a checkpoint. The fleet writes one at
most once a minute, and keeps three; a worker starts from the newest that is
intact, and replays the rest of the log.`,
		Example: `  lockstep snapshot ls
  lockstep snapshot put              # have the fleet write one now
  lockstep snapshot get -o state.bin
  lockstep snapshot put state.bin    # bring one back`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(snapshotLs(), snapshotGet(), snapshotPut())
	return cmd
}

// withHistory runs a command on a model's log and its boards.
func withHistory(
	c *connection, name string,
	do func(cmd *cobra.Command, h *history, args []string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		nc, err := c.connect(cmd.Context(), name)
		if err != nil {
			return err
		}
		defer nc.Close()
		h, err := openFleet(cmd, nc, c.model)
		if err != nil {
			return err
		}
		return do(cmd, h, args)
	}
}

// snapshotLine is a line of snapshot ls --json.
type snapshotLine struct {
	fleet.Snapshot
	Base  bool   `json:"base"`            // the log begins with it
	Aside string `json:"aside,omitempty"` // why it is not used
}

func (h *history) list(ctx context.Context) ([]snapshotLine, error) {
	all, err := fleet.Snapshots(ctx, h.Checkpoints)
	asides, asideErr := fleet.RejectedSnapshots(ctx, h.Checkpoints)
	if err := errors.Join(err, asideErr); err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	out := []snapshotLine{}
	if h.base != nil && !slices.ContainsFunc(all, func(s fleet.Snapshot) bool { return s.Object == h.base.Object }) {
		all = append([]fleet.Snapshot{*h.base}, all...)
	}
	for _, s := range all {
		l := snapshotLine{Snapshot: s, Base: h.base != nil && s.Object == h.base.Object}
		l.Genesis = nil
		for _, a := range asides {
			if a.Object == s.Object {
				l.Aside = a.Reason + " (" + a.Replica + ")"
			}
		}
		out = append(out, l)
	}
	return out, nil
}

func snapshotLs() *cobra.Command {
	var c connection
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the snapshots", Args: cobra.NoArgs,
		Example: "  lockstep snapshot ls\n  lockstep snapshot ls --json",
		RunE: withHistory(&c, "snapshot", func(cmd *cobra.Command, h *history, _ []string) error {
			all, err := h.list(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(all)
			}
			if len(all) == 0 {
				fmt.Fprintln(
					cmd.OutOrStdout(),
					"No snapshots yet: the fleet writes one at a checkpoint, or now with lockstep snapshot put.",
				)
				return nil
			}
			t := terminal.Table{Columns: []terminal.Column{
				{
					Name: "sequence",
				}, {Name: "bytes", Rank: 2}, {Name: "digest", Rank: 1}, {Name: "attested by", Wrap: true}, {Name: "", Wrap: true},
			}}
			for _, s := range all {
				note := ""
				if s.Base {
					note = "the log begins here"
				}
				if s.Aside != "" {
					note = strings.TrimPrefix(note+"; set aside: "+s.Aside, "; ")
				}
				t.Add(s.Seq, s.Size, fmt.Sprintf("%.12s", s.Digest), strings.Join(s.Attested, ", "), note)
			}
			t.Write(cmd.OutOrStdout())
			return nil
		}),
	}
	c.addClientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func snapshotGet() *cobra.Command {
	var c connection
	var out string
	cmd := &cobra.Command{
		Use: "get [SEQUENCE]", Short: "Fetch a snapshot, the newest or that of a sequence, and verify it", Args: cobra.MaximumNArgs(1),
		Example: "  lockstep snapshot get -o state.bin\n  lockstep snapshot get 4096 > state.bin",
		RunE: withHistory(&c, "snapshot", func(cmd *cobra.Command, h *history, args []string) error {
			all, err := h.list(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				seq, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil {
					return usage("%q is no sequence", args[0])
				}
				all = slices.DeleteFunc(all, func(s snapshotLine) bool { return s.Seq != seq })
			}
			if len(all) == 0 {
				return &exitError{exitFailed, errors.New("there is no such snapshot; see lockstep snapshot ls")}
			}
			s := all[len(all)-1].Snapshot
			m, err := fleet.LoadSnapshot(cmd.Context(), h.Snapshots, h.spec, s)
			if err != nil {
				return fmt.Errorf("the snapshot of %d: %w", s.Seq, printable.Error(err))
			}
			state := m.AppendState(nil)
			if out == "-" {
				_, err = terminal.Raw(cmd.OutOrStdout()).Write(state)
				return err
			}
			if err := os.WriteFile(out, state, 0o644); err != nil {
				return usage("%w", err)
			}
			fmt.Fprintf(
				cmd.OutOrStdout(), "The state at sequence %d is in %s: %d bytes, digest %s.\n", s.Seq, out,
				len(state), s.Digest,
			)
			return nil
		}),
	}
	c.addClientFlags(cmd)
	cmd.Flags().StringVarP(&out, "out", "o", "-", "where to write it; - is standard output")
	return cmd
}

func snapshotPut() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use: "put [FILE]", Short: "Have the fleet write a snapshot now, or bring one back from a file", Args: cobra.MaximumNArgs(1),
		Long: `Without a file it appends a checkpoint that asks the fleet for a snapshot, and
waits for it. With one, which snapshot get wrote, it folds the log to the file's
sequence, and stores it only if that gives the same state.`,
		Example: "  lockstep snapshot put\n  lockstep snapshot put state.bin",
		RunE: withHistory(&c, "snapshot", func(cmd *cobra.Command, h *history, args []string) error {
			if len(args) == 1 {
				return h.putFile(cmd, args[0])
			}
			s, err := h.request(cmd.Context(), c.timeout)
			if err != nil {
				return err
			}
			fmt.Fprintf(
				cmd.OutOrStdout(), "Snapshot at sequence %d: %d bytes, digest %s, attested by %s.\n", s.Seq, s.Size,
				s.Digest, strings.Join(s.Attested, ", "),
			)
			return nil
		}),
	}
	c.addClientFlags(cmd)
	return cmd
}

// request has the fleet write a snapshot, and waits for it.
func (h *history) request(ctx context.Context, timeout time.Duration) (*fleet.Snapshot, error) {
	seq, err := h.checkpoint(ctx, true)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(max(timeout, 10*time.Second)); ; {
		all, err := fleet.Snapshots(ctx, h.Checkpoints)
		if err != nil {
			return nil, &exitError{exitUnreachable, err}
		}
		if i := slices.IndexFunc(all, func(s fleet.Snapshot) bool { return s.Seq == seq }); i >= 0 {
			return &all[i], nil
		}
		if time.Now().After(deadline) {
			return nil, &exitError{
				exitUnreachable,
				fmt.Errorf(
					"no replica wrote the snapshot of sequence %d: is one ready (lockstep status), and do they agree (lockstep "+
						"verify)?",
					seq,
				),
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// putFile stores a snapshot from a file, if a fold of the log agrees.
func (h *history) putFile(cmd *cobra.Command, name string) error {
	state, err := readAll(cmd, name)
	if err != nil {
		return err
	}
	given, err := model.Restore(h.spec, state)
	if err != nil {
		return usage("%s: %w", name, err)
	}
	a := fleet.Attest(given)
	if a.Seq > h.last {
		return fmt.Errorf("%s is the state at sequence %d, and the log ends at %d", name, a.Seq, h.last)
	}
	m, err := h.start(cmd.Context())
	if err != nil {
		return err
	}
	if m.Seq() > a.Seq {
		return fmt.Errorf("%s is the state at sequence %d, and the log begins at %d", name, a.Seq, h.first)
	}
	folded, err := h.foldTo(cmd, m, a.Seq, true, nil)
	if err != nil {
		return fmt.Errorf("the log cannot be folded: %w", err)
	}
	if !folded.Comparable(a) || !folded.Same(a) {
		return fmt.Errorf(
			"%s is not what the log gives at sequence %d: its digest is %.12s, the log's %.12s", name, a.Seq,
			a.Digest, folded.Digest,
		)
	}
	a.Replica = "lockstep-snapshot-put"
	stored, err := fleet.StoreSnapshot(cmd.Context(), h.Checkpoints, h.Snapshots, h.spec, a, state, []string{a.Replica})
	if err != nil {
		return &exitError{exitUnreachable, err}
	}
	if !stored {
		return fmt.Errorf("sequence %d has a snapshot already", a.Seq)
	}
	fmt.Fprintf(
		cmd.OutOrStdout(), "Snapshot at sequence %d: %d bytes, digest %s; a fold of the log agrees.\n", a.Seq,
		len(state), a.Digest,
	)
	return nil
}

// readAll reads a file, or standard input for "-".
func readAll(cmd *cobra.Command, name string) (data []byte, err error) {
	if name == "-" {
		in := rows.Interruptible(cmd.Context(), cmd.InOrStdin())
		defer in.Close()
		data, err = io.ReadAll(in)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, usage("%w", err)
	}
	return data, nil
}
