package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/cmd/lockstep/internal/terminal"
	"lockstep/worker/fleet"
)

func statusCommand() *cobra.Command {
	var c connection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the fleet: every replica's state, sequence, chain and accuracy",
		Long: `Status asks every worker for its state. Replicas at the same sequence must show
the same chain; where they differ, the table says so and the exit code is 1.`,
		Example: `  lockstep status
  lockstep status --context prod --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nc, err := c.connect(cmd.Context(), "status")
			if err != nil {
				return err
			}
			defer nc.Close()
			replicas, err := fleetStatus(cmd.Context(), nc, c.model, c.timeout)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(replicas)
			} else {
				printFleet(cmd.OutOrStdout(), replicas)
			}
			if err == nil && !identical(replicas) {
				err = fmt.Errorf("replicas at the same sequence differ")
			}
			return err
		},
	}
	c.addModelFlags(cmd)
	cmd.Flags().
		DurationVar(&c.timeout, "timeout", time.Second, "how long to wait for answers: all of it, for nobody knows how "+
			"many workers there are")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array, one object a replica")
	return cmd
}

// fleetStatus asks every worker of a model, sorted by name.
func fleetStatus(ctx context.Context, nc *bus.Conn, name string, wait time.Duration) ([]fleet.Status, error) {
	answers, err := bus.Gather(ctx, nc, name+".status", nil, wait)
	if err != nil {
		return nil, remote(err)
	}
	var replicas []fleet.Status
	for _, a := range answers {
		s, reason := fleet.ReadStatus(a.Data)
		if reason != "" {
			// Shown in its place: who answers so is no replica, or another program.
			s = fleet.Status{
				Replica: cmp.Or(s.Replica, "?"), State: "unreadable",
				Advisory: "its status cannot be read: " + reason,
			}
		}
		replicas = append(replicas, s)
	}
	slices.SortFunc(replicas, func(a, b fleet.Status) int { return strings.Compare(a.Replica, b.Replica) })
	return replicas, nil
}

// identical reports whether all replicas at the same sequence are the same.
func identical(replicas []fleet.Status) bool {
	for i, a := range replicas {
		for _, b := range replicas[i+1:] {
			same := a.Digest == b.Digest && a.StateChain == b.StateChain && a.LogChain == b.LogChain
			if a.Seq == b.Seq && a.Encoding == b.Encoding && !same {
				return false
			}
		}
	}
	return true
}

func printFleet(out io.Writer, replicas []fleet.Status) {
	quality := "accuracy"
	if len(replicas) > 0 {
		quality, _ = replicas[0].Quality()
	}
	t := terminal.Table{Columns: []terminal.Column{
		{
			Name: "replica",
		}, {Name: "state"}, {Name: "sequence"}, {Name: "lag", Rank: 2}, {Name: "learned", Rank: 4}, {Name: "rejected", Rank: 3},
		{Name: "predicted", Rank: 6}, {Name: quality, Rank: 5}, {Name: "chain", Rank: 7}, {Name: "digest", Rank: 1},
	}}
	for _, s := range replicas {
		_, score := s.Quality()
		t.Add(s.Replica, s.State, s.Seq, s.Lag, s.Learned, s.Rejected, s.Predicted,
			fmt.Sprintf("%.3f", score), fmt.Sprintf("%.12s", s.StateChain), fmt.Sprintf("%.12s", s.Digest))
	}
	t.Write(out)
	if len(replicas) > 0 && replicas[0].Rejected > 0 {
		fmt.Fprintf(
			out, "Why events were rejected: nats sub '%s.verdict.>' --all\n",
			printable.Text(strings.ToLower(replicas[0].Stream)),
		)
	}
	if len(replicas) > 0 {
		if v, nearly := replicas[0].Fullest(); nearly {
			line := fmt.Sprintf("%s has %d values, and there is room for %d (max_values)", v.Name, v.Values, v.Most)
			fmt.Fprintln(out, terminal.Wrap(printable.Text(line), terminal.Width(out)))
		}
	}
	for _, s := range replicas {
		if s.Advisory != "" {
			fmt.Fprintln(out, terminal.Wrap(printable.Text(s.Replica+": "+s.Advisory), terminal.Width(out)))
		}
	}
}
