package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/cmd/lockstep/internal/terminal"
	"lockstep/worker/fleet"
)

func topCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the fleet live in a terminal",
		Long: `Top asks every worker for its state again and again, and shows the fleet: the
replicas with their sequences and digests, how much is predicted and learned a
second, and its accuracy. What differs, lags behind or does not answer
any more is coloured. Press q to leave.`,
		Example: `  lockstep top
  lockstep top --context prod --interval 5s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !terminal.Is(cmd.OutOrStdout()) {
				return usage("top needs a terminal; for scripts there is lockstep status --json")
			}
			nc, err := c.connect(cmd.Context(), "top")
			if err != nil {
				return err
			}
			defer nc.Close()
			screen := &top{model: c.model, look: func() (replicas []fleet.Status, err error) {
				return fleetStatus(cmd.Context(), nc, c.model, c.timeout)
			}}
			out := terminal.Raw(cmd.OutOrStdout()) // it draws; the screen's text is escaped
			_, err = tea.NewProgram(screen, tea.WithContext(cmd.Context()), tea.WithInput(cmd.InOrStdin()), tea.WithOutput(out)).
				Run()
			if errors.Is(err, context.Canceled) || errors.Is(err, tea.ErrProgramKilled) && cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	c.addModelFlags(cmd)
	cmd.Flags().DurationVar(&c.timeout, "interval", time.Second, "how often to look, and how long workers have to answer")
	return cmd
}

// top is what the screen shows.
type top struct {
	model string
	look  func() ([]fleet.Status, error)
	width int

	rows    []shownReplica
	trouble error     // of the last look
	at      time.Time // of it
	// Of the whole fleet, a second; negative while unknown.
	predicting, learning float64
}

// shownReplica is a row of the screen.
type shownReplica struct {
	fleet.Status
	seen time.Time // when it last answered
}

// looked is the outcome of a look.
type looked struct {
	replicas []fleet.Status
	err      error
	at       time.Time
}

func (t *top) again() tea.Msg {
	replicas, err := t.look()
	return looked{replicas, err, time.Now()}
}

func (t *top) Init() tea.Cmd {
	t.predicting, t.learning = -1, -1
	return t.again
}

func (t *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		t.width = msg.Width
	case tea.KeyPressMsg:
		if key := msg.String(); key == "q" || key == "ctrl+c" || key == "esc" {
			return t, tea.Quit
		}
	case looked:
		t.take(msg)
		if msg.err != nil { // it may have come at once
			return t, tea.Tick(time.Second, func(time.Time) tea.Msg { return t.again() })
		}
		return t, t.again
	}
	return t, nil
}

// goneAfter is how long a replica that does not answer any more is shown.
const goneAfter = time.Minute

// take takes in a look.
func (t *top) take(l looked) {
	before := t.at
	predicted, learned := t.totals()
	known := len(t.rows) > 0
	t.at, t.trouble = l.at, l.err
	t.rows = slices.DeleteFunc(t.rows, func(r shownReplica) bool { return l.at.Sub(r.seen) > goneAfter })
	for _, s := range l.replicas {
		i := slices.IndexFunc(t.rows, func(r shownReplica) bool { return r.Replica == s.Replica })
		if i < 0 {
			i, t.rows = len(t.rows), append(t.rows, shownReplica{})
		}
		t.rows[i] = shownReplica{s, l.at}
	}
	slices.SortFunc(t.rows, func(a, b shownReplica) int { return strings.Compare(a.Replica, b.Replica) })
	if seconds := l.at.Sub(before).Seconds(); known && seconds > 0 && l.err == nil {
		nowPredicted, nowLearned := t.totals()
		t.predicting, t.learning = float64(nowPredicted-predicted)/seconds, float64(nowLearned-learned)/seconds
	}
}

// totals are the fleet's counts, as far as anybody knows them.
func (t *top) totals() (predicted, learned int64) {
	for _, r := range t.rows {
		predicted, learned = max(predicted, r.Predicted), max(learned, int64(r.Learned))
	}
	return predicted, learned
}

func (t *top) View() tea.View {
	view := tea.NewView(t.text())
	view.AltScreen = true
	return view
}

// text is the screen's.
func (t *top) text() string {
	var out strings.Builder
	furthest := t.furthest()
	if t.at.IsZero() {
		return "asking the fleet of " + t.model + " …"
	}
	head := fmt.Sprintf("lockstep top  %s  %s", t.model, t.at.Format(time.TimeOnly))
	if furthest != nil {
		head += fmt.Sprintf("  learned %d", furthest.Learned)
		if t.predicting >= 0 && t.learning >= 0 {
			head += fmt.Sprintf("  %.0f predictions/s, %.0f events learned/s", t.predicting, t.learning)
		}
	}
	t.wrap(&out, head)
	if furthest != nil {
		t.wrap(&out, quality(&furthest.Status))
	}
	out.WriteString("\n")
	out.WriteString(t.table().Text(t.width))
	for _, r := range t.rows {
		if r.Advisory != "" {
			t.wrap(&out, r.Replica+": "+r.Advisory)
		}
	}
	if t.trouble != nil {
		t.wrap(&out, t.trouble.Error())
	}
	out.WriteString("\nq: leave")
	return out.String()
}

// wrap adds a sentence, escaped, in lines that fit.
func (t *top) wrap(out *strings.Builder, sentence string) {
	fmt.Fprintln(out, terminal.Wrap(printable.Text(sentence), t.width))
}

// furthest is the replica that has applied most; nil without any.
func (t *top) furthest() *shownReplica {
	var out *shownReplica
	for i := range t.rows {
		if out == nil || t.rows[i].Seq > out.Seq {
			out = &t.rows[i]
		}
	}
	return out
}

func (t *top) table() *terminal.Table {
	w := &terminal.Table{Plain: true, Columns: []terminal.Column{
		{Name: "replica"}, {Name: "state"}, {Name: "sequence"}, {Name: "lag", Rank: 2}, {Name: "rejected", Rank: 3},
		{Name: "waiting", Rank: 4}, {Name: "up", Rank: 5}, {Name: "chain", Rank: 6}, {Name: "digest", Rank: 1},
	}}
	for _, r := range t.rows {
		state, colour := r.State, text.Colors{}
		switch {
		case r.seen.Before(t.at) && t.trouble == nil:
			state, colour = fmt.Sprintf("no answer for %.0f s", t.at.Sub(r.seen).Seconds()), text.Colors{text.Faint}
		case r.State == fleet.Quarantined.String(), t.differs(r):
			colour = text.Colors{text.FgRed, text.Bold}
		case r.State != fleet.Ready.String() || r.Lag > 1000:
			colour = text.Colors{text.FgYellow}
		}
		w.Rows = append(w.Rows, terminal.Row{Colours: colour, Cells: []any{
			r.Replica, state, r.Seq, r.Lag, r.Rejected, r.Parked, (time.Duration(r.UptimeS) * time.Second).String(),
			fmt.Sprintf("%.12s", r.StateChain), fmt.Sprintf("%.12s", r.Digest),
		}})
	}
	return w
}

// differs reports whether a replica that answers now disagrees with another at
// the same sequence.
func (t *top) differs(r shownReplica) bool {
	return slices.ContainsFunc(t.rows, func(o shownReplica) bool {
		return o.seen.Equal(r.seen) && !identical([]fleet.Status{r.Status, o.Status})
	})
}

// quality is how good a replica's predictions are, in a line.
func quality(s *fleet.Status) string {
	rolling := s.Rolling
	switch {
	case s.Errors != nil && rolling.RollingErrors != nil:
		return fmt.Sprintf(
			"MAE %.4g (the last %d: %.4g)  RMSE %.4g  R2 %.3f", s.MAE, rolling.Events, rolling.MAE, s.RMSE, s.R2,
		)
	case s.Scores != nil && rolling.RollingScores != nil:
		return fmt.Sprintf("accuracy %.3f (the last %d: %.3f)  log-loss %.3f  macro F1 %.3f",
			s.Accuracy, rolling.Events, rolling.Accuracy, s.LogLoss, s.MacroF1)
	default:
		return "its scores are not known"
	}
}
