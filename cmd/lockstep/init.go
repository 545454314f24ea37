package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
)

type initOptions struct {
	connection
	spec     string
	replicas int
	dryRun   bool
	json     bool
}

// initialized is what init --json prints.
type initialized struct {
	Done  bool       `json:"done"` // false: a dry run, or refused
	Plans []bus.Plan `json:"plans"`
}

func initCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a model's streams, or change them to what they should be",
		Long: `Init makes the log, the buckets, the counter and the object store of a model, or
changes their settings to what the fleet needs, and shows first what differs. It
changes nothing that would lose data: then it says why, changes nothing at all,
and the exit code is 1. It can be run again, and by two at once.

A worker makes what is not there if it may. With the rights of the role worker
(lockstep roles) it only binds, and says what differs.`,
		Example: `  lockstep init --dry-run
  lockstep init --replicas 3 --context prod-operator
  lockstep init --spec my-model.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.addFlags(cmd)
	addSpecFlag(cmd, &o.spec)
	cmd.Flags().
		IntVar(&o.replicas, "replicas", 0, "JetStream replicas of the streams: 3 in a cluster (default: as they are, 1 "+
			"of what is made)")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what differs, and change nothing")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the plan as JSON")
	return cmd
}

func (o *initOptions) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	s, err := loadSpec(o.spec)
	if err != nil {
		return err
	}
	if o.replicas < 0 || o.replicas > 5 {
		return usage("--replicas is %d, and must be from 1 to 5", o.replicas)
	}
	nc, err := o.connect(ctx, "init")
	if err != nil {
		return err
	}
	defer nc.Close()
	stores := fleet.Stores(s.Name, o.replicas, func() []byte { return model.NewGenesis(s, bus.NewID()) })
	plans, err := bus.PlanStores(ctx, nc, stores)
	if err != nil {
		return &exitError{exitUnreachable, err}
	}
	if err := sameContract(ctx, nc, s, plans[0].Create); err != nil {
		return err
	}
	refused := slices.ContainsFunc(plans, bus.Plan.Refused)
	nothing := !slices.ContainsFunc(plans, func(p bus.Plan) bool { return !p.Nothing() })
	if !o.json {
		printPlans(cmd.OutOrStdout(), stores, plans)
	}
	done := !o.dryRun && !refused
	if done && !nothing {
		if err := bus.SetUp(ctx, nc, plans); err != nil {
			return fmt.Errorf("%w; what was done before that stays, and init can be run again", err)
		}
	}
	if o.json {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(initialized{done, plans}); err != nil {
			return err
		}
	}
	switch {
	case refused:
		return errors.New("some of it would lose data or cannot be changed, so nothing was changed")
	case o.json:
	case nothing:
		fmt.Fprintln(cmd.OutOrStdout(), "Nothing to do.")
	case o.dryRun:
		fmt.Fprintln(cmd.OutOrStdout(), "Nothing was changed: this is a dry run.")
	default:
		fmt.Fprintln(cmd.OutOrStdout(), "Done.")
	}
	return nil
}

// sameContract refuses a log that was made with another spec.
func sameContract(ctx context.Context, nc *bus.Conn, s *model.Spec, anew bool) error {
	if anew {
		return nil
	}
	genesis, err := bus.Genesis(ctx, nc, s.Name)
	if err != nil || genesis == nil { // it was cut by a compaction, or is still to come
		return err
	}
	g, err := model.ParseGenesis(genesis)
	if err != nil {
		return fmt.Errorf("the log %s: %w", bus.StreamName(s.Name), err)
	}
	contract := s.Contract()
	if own := hex.EncodeToString(contract[:]); g.Contract != own {
		return fmt.Errorf(
			"%w: %s was made with %.16s, this spec is %.16s; give the spec that the log was made with, or the new model a "+
				"name of its own; nothing was changed",
			replica.ErrContract, bus.StreamName(s.Name), g.Contract, own,
		)
	}
	return nil
}

func printPlans(out io.Writer, stores []bus.Store, plans []bus.Plan) {
	for i, p := range plans {
		switch {
		case p.Create:
			fmt.Fprintf(out, "+ %-24s %s: make it\n", p.Stream, stores[i].Keeps)
		case p.Nothing():
			fmt.Fprintf(out, "  %-24s %s: as it should be\n", p.Stream, stores[i].Keeps)
		}
		for _, d := range p.Differences {
			mark, note := "~", ""
			if d.Refused != "" {
				mark, note = "!", "\n    left alone: "+d.Refused
			}
			fmt.Fprintf(out, "%s %-24s %s: %s → %s%s\n", mark, p.Stream, d.Setting, d.Have, d.Want, note)
		}
	}
}
