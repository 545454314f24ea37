package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"lockstep/cmd/lockstep/internal/printable"
)

func teachCommand() *cobra.Command {
	var r row
	var id string
	cmd := &cobra.Command{
		Use:   "teach [JSON]",
		Short: "Teach the fleet one event, or a batch, and wait until it is learned",
		Long: `Teach checks an event, stores it in the log, and answers once the worker that
took it has learned it. With --id the same call can be repeated safely: the
event is learned once, and the repeat gets the first answer.`,
		Example: `  lockstep teach -f species=Adelie -f island=Torgersen -f bill_length_mm=39.1 -f sex=male
  lockstep teach --id penguin-17 '{"attributes":{"island":"Dream","bill_length_mm":null,"bill_depth_mm":null,"flipper_length_mm":190,"body_mass_g":3700,"sex":null},"species":"Chinstrap"}'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := r.body(cmd, args, true)
			if err != nil {
				return err
			}
			header := nats.Header{}
			if id != "" {
				header.Set("Nats-Msg-Id", id)
			}
			answer, err := r.ask(cmd.Context(), "teach", body, header)
			if err != nil {
				return err
			}
			var a struct {
				Status    string `json:"status"`
				Seq       uint64 `json:"seq"`
				Learned   uint64 `json:"learned"`
				Duplicate bool   `json:"duplicate"`
			}
			if err := json.Unmarshal(answer.Data, &a); err != nil || r.json {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", answer.Data)
				return nil
			}
			again := ""
			if a.Duplicate {
				again = ", as was answered before: its id is known"
			}
			fmt.Fprintf(
				cmd.OutOrStdout(), "%s  (%d learned, at sequence %d%s)\n", printable.Text(a.Status), a.Learned,
				a.Seq, again,
			)
			return nil
		},
	}
	r.addFlags(cmd)
	cmd.Flags().StringVar(&id, "id", "", "the event's id (Nats-Msg-Id)")
	return cmd
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
