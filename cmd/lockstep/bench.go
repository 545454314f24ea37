package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/cmd/lockstep/internal/terminal"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/fleet"
)

type benchOptions struct {
	quick   bool
	only    string
	json    bool
	profile string
}

// figure is one pair that is measured side by side: what Lockstep does, and
// the floor that no one on NATS gets below.
type figure struct {
	name   string
	what   string
	atMost bool    // the ratio should be at most the goal, else at least
	goal   float64 // of the median ratio; 0: none, it is shown alone
	rounds int     // at most, 0: as many as are asked for
	// measure measures both, in the order of the round.
	measure func(b *bench, round int) (ours, floor float64, err error)
}

// measured is a figure's result.
type measured struct {
	Name   string    `json:"name"`
	What   string    `json:"what"`
	Ratio  float64   `json:"ratio"` // the rounds' median
	Goal   float64   `json:"goal"`
	AtMost bool      `json:"at_most"`
	Met    bool      `json:"met"`
	Rounds []float64 `json:"rounds"` // each round's ratio
	Ours   float64   `json:"ours"`   // the medians, in the figure's own unit
	Floor  float64   `json:"floor"`
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure Lockstep against the floor of this machine, side by side",
		Long: `Bench starts servers and workers of its own on 127.0.0.1, and measures each thing
beside the floor that NATS itself sets on this machine: an echo, a raw reader, a
raw publisher. The two of a pair take turns in every round; only their ratio
means something on a machine that others use, too.`,
		Example: `  lockstep bench --quick
  lockstep bench --only 'predict|replay' --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.quick, "quick", false, "fewer and shorter rounds: under 45 s")
	f.StringVar(&o.only, "only", "", "only the figures whose name this regular expression matches")
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	cmd.AddCommand(benchServerCommand())
	f.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of all of it to this file, for go tool pprof")
	return cmd
}

func (o *benchOptions) run(cmd *cobra.Command) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return usage("--only: %w", err)
	}
	chosen := slices.DeleteFunc(figures(), func(f figure) bool { return !only.MatchString(f.name) })
	if len(chosen) == 0 {
		return usage("--only %s matches no figure", o.only)
	}
	b := &bench{ctx: cmd.Context(), slice: 2 * time.Second, events: 1_000_000, rounds: 7}
	if o.quick {
		b.slice, b.events, b.rounds = 300*time.Millisecond, 100_000, 3
	}
	if o.profile != "" {
		out, err := os.Create(o.profile)
		if err != nil {
			return usage("%w", err)
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var results []measured
	for _, f := range chosen {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", f.name, f.what)
		m, err := b.figure(f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		results = append(results, m)
	}
	if o.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"figures": results})
	}
	printFigures(cmd.OutOrStdout(), results)
	return nil
}

func printFigures(out io.Writer, results []measured) {
	t := terminal.Table{Columns: []terminal.Column{
		{Name: "figure", Wrap: true}, {Name: "ratio"}, {Name: "range", Rank: 1}, {Name: "goal"}, {Name: "met"},
	}}
	for _, m := range results {
		goal, met := fmt.Sprintf("≥ %g", m.Goal), "yes"
		if m.AtMost {
			goal = fmt.Sprintf("≤ %g", m.Goal)
		}
		if !m.Met {
			met = "NO"
		}
		if m.Goal == 0 && !m.AtMost {
			goal, met = "", ""
		}
		spread := fmt.Sprintf("%.3g – %.3g", slices.Min(m.Rounds), slices.Max(m.Rounds))
		t.Add(m.What, fmt.Sprintf("%.3g", m.Ratio), spread, goal, met)
	}
	t.Write(out)
}

// bench measures figures.
type bench struct {
	ctx    context.Context
	slice  time.Duration // of a timed run
	events int           // of a replay
	rounds int
	close  []func() // what the present figure has started, the last first
}

// figure measures one, and stops what it has started.
func (b *bench) figure(f figure) (m measured, err error) {
	defer func() {
		for _, c := range slices.Backward(b.close) {
			c()
		}
		b.close = nil
	}()
	m = measured{Name: f.name, What: f.what, Goal: f.goal, AtMost: f.atMost}
	var ours, floors []float64
	rounds := b.rounds
	if f.rounds > 0 {
		rounds = min(rounds, f.rounds)
	}
	for round := range rounds {
		x, y, err := f.measure(b, round)
		if err != nil {
			return m, err
		}
		ours, floors = append(ours, x), append(floors, y)
		m.Rounds = append(m.Rounds, x/y)
	}
	m.Ratio, m.Ours, m.Floor = median(m.Rounds), median(ours), median(floors)
	m.Met = m.Ratio >= m.Goal
	if m.AtMost {
		m.Met = m.Ratio <= m.Goal
	}
	return m, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[len(sorted)/2] + sorted[(len(sorted)-1)/2]) / 2
}

// turns runs two measurements, the other first in every second round.
func turns(round int, ours, floor func() (float64, error)) (x, y float64, err error) {
	if round%2 == 1 {
		if y, err = floor(); err == nil {
			x, err = ours()
		}
		return x, y, err
	}
	if x, err = ours(); err == nil {
		y, err = floor()
	}
	return x, y, err
}

// server starts a nats-server for the present figure, in a process of its own,
// as a real one is: beside a server with a million ids to remember, the garbage
// collector would take a fifth of the time. A lazy one does not sync each
// message: where durability is not what is measured, a log is long at once.
func (b *bench) server(lazy bool) (url string, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "lockstep-bench-")
	if err != nil {
		return "", err
	}
	b.close = append(b.close, func() { os.RemoveAll(dir) })
	server := exec.CommandContext(b.ctx, program, "bench", "server", dir, fmt.Sprintf("--lazy=%t", lazy))
	server.Stderr = os.Stderr
	stop, err := server.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := server.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := server.Start(); err != nil {
		return "", err
	}
	b.close = append(b.close, func() { stop.Close(); _ = server.Wait() })
	url, err = bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(url), err
}

// benchServerCommand is the server of a bench. It ends with its input, and so
// with the bench, however that ends.
func benchServerCommand() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use: "server DIR", Short: "Run a server for bench", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := broker.Start(cmd.Context(), broker.Config{StoreDir: args[0], Name: "lockstep-bench", Lazy: lazy})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), s.ClientURL())
			_, _ = io.Copy(io.Discard, cmd.InOrStdin())
			return s.Shutdown()
		},
	}
	cmd.Flags().BoolVar(&lazy, "lazy", false, "do not sync each message")
	return cmd
}

func (b *bench) connect(url string) (*bus.Conn, error) {
	nc, err := bus.Connect(b.ctx, bus.ConnectConfig{Server: url, Name: "lockstep bench"})
	if err == nil {
		b.close = append(b.close, nc.Close)
	}
	return nc, err
}

// workers starts workers and returns once they are ready.
func (b *bench) workers(url string, n int, spec *model.Spec) error {
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, n)
	ready := make(chan struct{}, n)
	for i := range n {
		config := worker.JoinConfig{
			Connect: bus.ConnectConfig{Server: url}, Name: fmt.Sprintf("bench-%d", i), Version: programVersion(), Spec: spec,
			Logger: slog.New(slog.DiscardHandler),
			OnState: func(s fleet.State) {
				if s == fleet.Ready {
					ready <- struct{}{}
				}
			},
		}
		go func() { ended <- worker.Serve(ctx, config) }()
	}
	b.close = append(b.close, func() {
		cancel()
		for range n {
			<-ended
		}
	})
	for range n {
		select {
		case <-ready:
		case err := <-ended:
			ended <- nil
			return errors.Join(errors.New("a worker ended"), err)
		}
	}
	return nil
}
