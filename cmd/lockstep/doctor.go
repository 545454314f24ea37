package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/model"
	"lockstep/worker/fleet"
)

type doctorOptions struct {
	connection
	spec     string
	monitors []string
	json     bool
}

// examined is what doctor --json prints.
type examined struct {
	Worst    bus.Level    `json:"worst"`
	Findings bus.Findings `json:"findings"`
}

func doctorCommand() *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong with servers, streams and fleet, and how to mend it",
		Long: `Doctor connects as whoever you are and looks at the server and its version, at
JetStream's room, at the model's streams and their servers, at clocks, rights and
certificates, at every worker and whether they agree, and at the snapshots. It
changes nothing. Each line is ok, warn, fail, or unknown where it may not look; what
is not ok says how to mend it.

What clients do not see (whether messages are synced to the disk, the servers' own
limits, two servers on one store) it reads from the monitoring pages that --monitor
names. Exit code 1 if something fails, 3 if no server was reached.`,
		Example: `  lockstep doctor
  lockstep doctor --monitor http://127.0.0.1:8222 --json
  lockstep doctor --context prod-observer --spec my-model.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.addModelFlags(cmd)
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Second, "how long to wait for the workers' answers")
	cmd.Flags().StringVar(&o.spec, "spec", "", "the spec that the fleet should serve; else it is the log's")
	cmd.Flags().
		StringArrayVar(&o.monitors, "monitor", nil, "a server's monitoring address, as http://127.0.0.1:8222, again for each")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *doctorOptions) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	var own *model.Spec
	if o.spec != "" {
		s, err := loadSpec(o.spec)
		if err != nil {
			return err
		}
		own, o.model = s, s.Name
	}
	var f bus.Findings
	nc, err := o.connect(ctx, "doctor")
	if err == nil {
		defer nc.Close()
		f = bus.Examine(ctx, nc, fleet.Stores(o.model, 0, nil))
		f = append(f, fleet.Examine(ctx, nc, o.model, own, o.timeout)...)
	} else {
		f.Add(bus.Fail, "server", "start the server, or say where it is and who you are: --server, --context, --creds, "+
			"--tlscert", "%v", err)
	}
	f = append(f, bus.ExamineMonitors(ctx, o.monitors)...)
	worst := f.Worst()
	if o.json {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(examined{worst, f}); err != nil {
			return err
		}
	} else {
		printFindings(cmd.OutOrStdout(), f)
	}
	switch {
	case err != nil:
		return &exitError{exitUnreachable, errors.New("no server was reached")}
	case worst == bus.Fail:
		return errors.New("something is wrong; each line says how to mend it")
	}
	return nil
}

func printFindings(out io.Writer, f bus.Findings) {
	for _, one := range f {
		fmt.Fprintf(out, "%-7s %s: %s\n", one.Level, printable.Text(one.Check), printable.Text(one.Text))
		if one.Mend != "" {
			fmt.Fprintf(out, "        → %s\n", printable.Text(one.Mend))
		}
	}
}
