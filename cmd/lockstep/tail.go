package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
)

type tailOptions struct {
	connection
	last     uint64
	since    uint64
	rejected bool
	follow   bool
	json     bool
}

func tailCommand() *cobra.Command {
	var o tailOptions
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print what the fold makes of each event, as they come",
		Long: `Tail follows a model's log and prints a line for each event: its sequence, the
verdict (learned, rejected or duplicate), the label, and what was predicted
before it was learned. It folds the log itself, from the newest snapshot before
the first line, so it says what every replica says.`,
		Example: `  lockstep tail                        # the last 10 messages, and then what comes
  lockstep tail --rejected             # only what was rejected, and why
  lockstep tail --since 345 --follow=false --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("since") && cmd.Flags().Changed("last") {
				return usage("--since and --last exclude each other")
			}
			return o.run(cmd)
		},
	}
	o.addModelFlags(cmd)
	f := cmd.Flags()
	f.Uint64Var(&o.last, "last", 10, "begin with the last so many messages of the log")
	f.Uint64Var(&o.since, "since", 0, "begin at this sequence")
	f.BoolVar(&o.rejected, "rejected", false, "only events that were rejected")
	f.BoolVar(&o.follow, "follow", true, "go on with what comes, until interrupted")
	f.BoolVar(&o.json, "json", false, "print JSON, one event a line")
	return cmd
}

func (o *tailOptions) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	nc, err := o.connect(ctx, "tail")
	if err != nil {
		return err
	}
	defer nc.Close()
	h, err := openHistory(cmd, nc, o.model)
	if err != nil {
		return err
	}
	since := o.since
	if !cmd.Flags().Changed("since") {
		since = h.last + 1 - min(o.last, h.last)
	}
	m, err := h.before(ctx, since)
	if err != nil {
		return err
	}
	to := uint64(math.MaxUint64)
	if !o.follow {
		to = h.last
	}
	if m.Seq() >= to {
		return nil
	}
	out := cmd.OutOrStdout()
	bar := progress(cmd, "folding the log", int64(since), !o.json && since > m.Seq()+1000)
	defer bar.Finish()
	from := bus.Position{
		Applied: m.Seq(),
		Check:   func(msg *bus.Message) bool { return m.IsTip(replica.Message(o.model, msg)) },
	}
	err = h.log.Tail(ctx, from, func(msg *bus.Message) error {
		result := m.Apply(replica.Message(o.model, msg))
		if msg.Seq < since {
			bar.Set64(int64(msg.Seq))
			return nil
		}
		bar.Finish()
		if err := o.print(out, msg.Time, result); err != nil {
			return err
		}
		if msg.Seq >= to {
			return errEnough
		}
		return nil
	})
	var rolled *bus.RolledBackError
	switch {
	case errors.Is(err, errEnough), ctx.Err() != nil && o.follow:
		return nil
	case errors.As(err, &rolled):
		return fmt.Errorf("the log is another now, and what was printed of it may be gone: %w; run tail again", err)
	}
	return err
}

// before is a model that has folded the log to a place before a sequence: from
// the newest snapshot that will do, or from the log's beginning.
func (h *history) before(ctx context.Context, seq uint64) (*model.Model, error) {
	if h.Snapshots == nil {
		return h.start(ctx)
	}
	all, err := fleet.Snapshots(ctx, h.Checkpoints)
	if err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	asides, err := fleet.RejectedSnapshots(ctx, h.Checkpoints)
	if err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	bad := map[string]bool{}
	for _, a := range asides {
		bad[a.Object] = true
	}
	g, err := model.ParseGenesis(h.genesis)
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		s := all[i]
		if s.Seq >= seq || s.Seq > h.last || s.Seq < h.first || bad[s.Object] || s.Incarnation != g.Incarnation ||
			s.Contract != g.Contract ||
			s.Encoding != model.Encoding {
			continue
		}
		if m, err := fleet.LoadSnapshot(ctx, h.Snapshots, h.spec, s); err == nil {
			return m, nil
		}
	}
	return h.start(ctx)
}

// tailed is a line of --json.
type tailed struct {
	Seq     uint64          `json:"seq"`
	Index   *int            `json:"index,omitempty"` // in a batch
	Time    time.Time       `json:"time"`
	Verdict string          `json:"verdict"`
	Label   *model.Target   `json:"label,omitempty"`
	Predict *model.Target   `json:"predict,omitempty"` // before it was learned
	Right   *bool           `json:"right,omitempty"`
	First   uint64          `json:"first,omitempty"`  // a duplicate's: where it was learned
	Detail  []model.Problem `json:"detail,omitempty"` // why it was rejected
}

// print prints a line for each event of a message.
func (o *tailOptions) print(out io.Writer, at time.Time, result *model.Result) error {
	for i, event := range result.Outcomes {
		if o.rejected && event.Verdict != model.Rejected {
			continue
		}
		line := tailed{Seq: result.Seq, Time: at.UTC(), Verdict: event.Verdict.String(), Detail: event.Problems}
		if result.Batch {
			line.Index = &i
		}
		if event.Verdict != model.Rejected {
			line.Label = &event.Answer.Label
			if event.Answer.Known {
				line.Predict = &event.Answer.Predicted
				if right := event.Answer.Predicted == event.Answer.Label; event.Answer.Label.Type != model.Number {
					line.Right = &right
				}
			}
		}
		if event.Verdict == model.Duplicate {
			line.First = event.Answer.Seq
		}
		if err := o.printLine(out, line); err != nil {
			return err
		}
	}
	return nil
}

func (o *tailOptions) printLine(out io.Writer, line tailed) error {
	if o.json {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(line)
	}
	place := fmt.Sprint(line.Seq)
	if line.Index != nil {
		place += fmt.Sprint(".", *line.Index)
	}
	text := ""
	switch {
	case line.Verdict == model.Rejected.String():
		var problems []string
		for _, p := range line.Detail {
			problems = append(problems, p.String())
		}
		text = strings.Join(problems, "; ")
	case line.First > 0:
		text = fmt.Sprintf("%s, learned at %d already", line.Label, line.First)
	case line.Predict == nil:
		text = fmt.Sprintf("%s, nothing was known before", line.Label)
	case line.Right != nil && *line.Right:
		text = fmt.Sprintf("%s, as predicted", line.Label)
	default:
		text = fmt.Sprintf("%s, predicted %s", line.Label, *line.Predict)
	}
	_, err := fmt.Fprintf(
		out, "%s  %-10s %-9s %s\n", line.Time.Local().Format(time.DateTime), place, line.Verdict,
		printable.Text(text),
	)
	return err
}
