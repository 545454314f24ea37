package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/adrg/xdg"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/cmd/lockstep/internal/rows"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/fleet"
	"lockstep/worker/web"
)

// penguins is the Palmer penguins data in a shuffled order: sorted by species,
// as published, it would show a learner one class at a time. CC0; see
// model/testdata/README.md.
//
//go:embed penguins.csv
var penguins string

// penguinRows are the penguins as learn events.
func penguinRows() (events [][]byte, err error) {
	text, err := rows.NewText(strings.NewReader(penguins), "")
	if err != nil {
		return nil, err
	}
	r, err := rows.NewReader(text, "penguins.csv", model.DefaultSpec(), rows.Options{NA: []string{"NA"}})
	if err != nil {
		return nil, err
	}
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return nil, err
		}
		events = append(events, bytes.Clone(row.Data))
	}
}

const (
	defaultPort = 4222
	defaultHTTP = "127.0.0.1:8080"
)

type demoOptions struct {
	workers int
	port    int
	http    httpDoor
	store   string
	fresh   bool
	once    bool
	json    bool
}

func demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A server, three workers and 344 penguins, in one process on this machine",
		Long: `Demo starts a nats-server on 127.0.0.1 and workers that replay one log, each
into its own replica. It teaches them the 344 Palmer penguins, each predicted
before it is learned, shows that all replicas are identical, and goes on serving
so that you can try it with the nats CLI. It runs the same code as production.

What was learned is kept in --store and is there again at the next start.`,
		Example: `  lockstep demo
  lockstep demo --once --json      # teach, compare, and end: for scripts
  lockstep demo --fresh            # forget what was learned before`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.IntVar(&o.workers, "workers", 3, "how many workers")
	f.IntVar(&o.port, "port", defaultPort, "the server's port on 127.0.0.1, 0 for a free one")
	o.http.addFlags(
		cmd, defaultHTTP, "address of the first worker's HTTP door; with --once none unless given; empty: none",
	)
	f.StringVar(
		&o.store, "store", "",
		"directory of the log (default "+defaultStoreHelp()+"; with --once a temporary one)",
	)
	f.BoolVar(&o.fresh, "fresh", false, "delete what the store holds first")
	f.BoolVar(
		&o.once, "once", false,
		"end after the teaching: exit code 0 if all replicas are identical and all is learned",
	)
	f.BoolVar(&o.json, "json", false, "with --once: print the result as JSON")
	return cmd
}

func defaultStore() string { return filepath.Join(xdg.DataHome, "lockstep", "demo") }

// defaultStoreHelp names the default without naming the user.
func defaultStoreHelp() string {
	return strings.Replace(defaultStore(), xdg.Home, "~", 1)
}

func (o *demoOptions) run(cmd *cobra.Command) error {
	if o.workers < 1 || o.workers > 64 {
		return usage("--workers is %d, and must be from 1 to 64", o.workers)
	}
	if o.port < 0 || o.port > 65535 {
		return usage("--port is %d, and must be from 0 to 65535", o.port)
	}
	if o.json && !o.once {
		return usage("--json goes with --once")
	}
	done, err := o.prepareStore()
	if err != nil {
		return err
	}
	defer done()
	d := &demo{options: o, out: cmd.OutOrStdout()}
	if o.json {
		d.out = io.Discard
	}
	server, err := d.startServer(cmd)
	if err != nil {
		return err
	}
	defer server.Shutdown()
	if d.door, err = d.openDoor(cmd); err != nil {
		return err
	}
	return d.run(cmd, server.ClientURL())
}

// openDoor opens the HTTP door, on a free port if the usual one is taken.
func (d *demo) openDoor(cmd *cobra.Command) (*web.Server, error) {
	h := d.options.http
	chosen := cmd.Flags().Changed("http")
	if d.options.once && !chosen {
		return nil, nil
	}
	door, err := h.open(demoLogger(cmd.ErrOrStderr()))
	if errors.Is(err, syscall.EADDRINUSE) && !chosen {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s is taken, so the HTTP door takes a free port.\n", h.addr)
		h.addr = "127.0.0.1:0"
		door, err = h.open(demoLogger(cmd.ErrOrStderr()))
	}
	return door, err
}

// demoLogger writes for people only, and what is out of the ordinary.
func demoLogger(out io.Writer) *slog.Logger { return people(out, slog.LevelWarn) }

// prepareStore finds the store's directory, and empties it with --fresh.
func (o *demoOptions) prepareStore() (done func(), err error) {
	done = func() {}
	switch {
	case o.store == "" && o.once:
		if o.store, err = os.MkdirTemp("", "lockstep-demo-"); err != nil {
			return nil, err
		}
		done = func() { os.RemoveAll(o.store) }
	case o.store == "":
		o.store = defaultStore()
	}
	if o.fresh {
		// Only the server's own part: a directory given by mistake keeps the rest.
		if err := broker.Erase(o.store); err != nil {
			return nil, &exitError{exitFailed, err}
		}
	}
	return done, nil
}

type demo struct {
	options *demoOptions
	out     io.Writer
	spec    *model.Spec
	url     string
	conn    *bus.Conn
	door    *web.Server // the first worker's, or nil
	taught  uint64      // the sequence of the last penguin taught
}

func (d *demo) startServer(cmd *cobra.Command) (*broker.Server, error) {
	config := broker.Config{Port: d.options.port, StoreDir: d.options.store, Name: "lockstep-demo"}
	server, err := broker.Start(cmd.Context(), config)
	var taken *broker.PortError
	if errors.As(err, &taken) && !cmd.Flags().Changed("port") {
		fmt.Fprintf(cmd.ErrOrStderr(), "Port %d is taken, so the demo takes a free one.\n", taken.Port)
		config.Port = 0
		server, err = broker.Start(cmd.Context(), config)
	}
	switch {
	case errors.As(err, &taken):
		return nil, usage("port %d is taken: choose another with --port, or --port 0 for a free one", taken.Port)
	case err != nil:
		return nil, err
	}
	return server, nil
}

// run starts the workers, teaches them, and serves until the context ends.
func (d *demo) run(cmd *cobra.Command, url string) (err error) {
	d.url, d.spec = url, model.DefaultSpec()
	fmt.Fprintf(d.out, "nats-server on %s, its log in %s\n", url, d.options.store)
	if d.door != nil {
		fmt.Fprintf(d.out, "page, HTTP and metrics on %s\n", d.door.URL())
	}
	if d.conn, err = bus.Connect(cmd.Context(), bus.ConnectConfig{Server: url, Name: "lockstep demo", Bare: true}); err != nil {
		return err
	}
	defer d.conn.Close()

	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	started, err := d.startWorkers(ctx, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	err = d.show(cmd, started)
	stop()
	return errors.Join(err, started.wait())
}

// show is what there is to see of a running fleet.
func (d *demo) show(cmd *cobra.Command, started *demoFleet) error {
	taught, err := d.teach(cmd)
	var statuses []fleet.Status
	if err == nil {
		statuses, err = d.settle(cmd.Context())
	}
	switch {
	case cmd.Context().Err() != nil && d.options.once:
		return errors.New("interrupted before all was taught and compared")
	case cmd.Context().Err() != nil:
		return nil // interrupted, and not failed
	case err != nil:
		return err
	}
	result := d.result(statuses, taught)
	if d.options.json {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(result); err != nil {
			return err
		}
	}
	d.print(statuses, result)
	if d.options.once {
		return result.verdict()
	}
	d.invite()
	select {
	case <-cmd.Context().Done():
		fmt.Fprintln(d.out, "\nStopping: the workers answer what they have accepted.")
		return nil
	case err := <-started.failed:
		return err
	}
}

// demoFleet is the demo's workers.
type demoFleet struct {
	running sync.WaitGroup
	failed  chan error
}

func (f *demoFleet) wait() error {
	f.running.Wait()
	select {
	case err := <-f.failed:
		return err
	default:
		return nil
	}
}

// startWorkers starts the workers and returns once all are ready.
func (d *demo) startWorkers(ctx context.Context, errOut io.Writer) (*demoFleet, error) {
	f := &demoFleet{failed: make(chan error, d.options.workers)}
	ready := make(chan struct{}, d.options.workers)
	for i := range d.options.workers {
		var once sync.Once
		config := worker.JoinConfig{
			Connect: bus.ConnectConfig{
				Server: d.url, Bare: true,
			}, Name: fmt.Sprintf("demo-%d", i+1), Version: programVersion(), Spec: d.spec,
			Logger: demoLogger(errOut),
			OnState: func(s fleet.State) {
				if s == fleet.Ready {
					once.Do(func() { ready <- struct{}{} })
				}
			},
		}
		serve := worker.Serve
		if i == 0 && d.door != nil {
			serve = func(ctx context.Context, config worker.JoinConfig) error { return web.Serve(ctx, config, d.door) }
		}
		f.running.Go(func() {
			if err := serve(ctx, config); err != nil && ctx.Err() == nil {
				f.failed <- fmt.Errorf("worker %s: %w", config.Name, err)
			}
		})
	}
	for range d.options.workers {
		select {
		case <-ready:
		case err := <-f.failed:
			return nil, err
		case <-ctx.Done():
			return f, nil
		}
	}
	fmt.Fprintf(d.out, "%d workers, each with its own replica of the model %s\n\n", d.options.workers, d.spec.Name)
	return f, nil
}

// teach predicts and then teaches each penguin, through the same doors that
// any client uses. Its ids are fixed, so a second run learns nothing twice.
func (d *demo) teach(cmd *cobra.Command) (taught int, err error) {
	events, err := penguinRows()
	if err != nil {
		return 0, err
	}
	bar := progress(cmd, "teaching", int64(len(events)), !d.options.json)
	defer bar.Finish()
	correct, known := 0, 0
	for i, event := range events {
		right, again, err := d.lesson(cmd.Context(), i, event)
		if err != nil {
			return taught, fmt.Errorf("penguin %d: %w", taught+1, err)
		}
		taught++
		if right {
			correct++
		}
		if again {
			known++
		}
		bar.Describe(fmt.Sprintf("teaching, %4.1f %% predicted correctly", 100*float64(correct)/float64(taught)))
		bar.Set(taught)
		if taught%86 == 0 && known == 0 {
			fmt.Fprintf(
				d.out, "after %3d penguins: %4.1f %% were predicted correctly before they were learned\n", taught,
				100*float64(correct)/float64(taught),
			)
		}
	}
	bar.Finish()
	if known > 0 {
		fmt.Fprintf(d.out, "%d penguins were known already from an earlier run, and were not learned again\n", known)
	}
	return taught, nil
}

// lesson predicts one penguin, and then teaches it.
func (d *demo) lesson(ctx context.Context, index int, event []byte) (right, again bool, err error) {
	var learn struct {
		Attributes json.RawMessage `json:"attributes"`
		Species    string          `json:"species"`
	}
	if err := json.Unmarshal(event, &learn); err != nil {
		return false, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Whichever worker answers has learned what was taught before.
	answer, err := bus.Ask(
		ctx, d.conn, d.spec.Name+".predict", learn.Attributes,
		nats.Header{"Lockstep-Min-Seq": {fmt.Sprint(d.taught)}},
	)
	if err != nil {
		return false, false, err
	}
	var predicted struct {
		Species *string `json:"species"`
	}
	if err := json.Unmarshal(answer.Data, &predicted); err != nil {
		return false, false, err
	}
	id := fmt.Sprintf("demo-penguin-%d", index+2) // its line in the file
	answer, err = bus.Ask(ctx, d.conn, d.spec.Name+".teach", event, nats.Header{"Nats-Msg-Id": {id}})
	if err != nil {
		return false, false, err
	}
	var taught struct {
		Seq       uint64 `json:"seq"`
		Duplicate bool   `json:"duplicate"`
	}
	err = json.Unmarshal(answer.Data, &taught)
	d.taught = taught.Seq
	return predicted.Species != nil && *predicted.Species == learn.Species, taught.Duplicate, err
}

// settle waits until all workers have applied the same sequence, and have
// heard of each other's predictions.
func (d *demo) settle(ctx context.Context) ([]fleet.Status, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		statuses, err := fleetStatus(ctx, d.conn, d.spec.Name, 250*time.Millisecond)
		if err != nil {
			return nil, err
		}
		same := len(statuses) == d.options.workers
		for _, s := range statuses {
			same = same && s.Seq == statuses[0].Seq && s.Predicted == statuses[0].Predicted
		}
		if same || time.Now().After(deadline) {
			return statuses, nil
		}
	}
}

// demoResult is what --once --json prints.
type demoResult struct {
	Identical bool     `json:"identical"`
	Learned   uint64   `json:"learned"`
	Accuracy  float64  `json:"accuracy"`
	Digests   []string `json:"digests"`
	complete  bool
}

func (d *demo) result(statuses []fleet.Status, taught int) demoResult {
	r := demoResult{Identical: len(statuses) == d.options.workers}
	for i, s := range statuses {
		r.Digests = append(r.Digests, s.Digest)
		r.Identical = r.Identical && s.Digest == statuses[0].Digest && s.Seq == statuses[0].Seq
		if i == 0 {
			r.Learned = s.Learned
			_, r.Accuracy = s.Quality()
		}
	}
	r.complete = taught == strings.Count(penguins, "\n")-1 && r.Learned >= uint64(taught)
	return r
}

func (r demoResult) verdict() error {
	switch {
	case !r.Identical:
		return errors.New("the replicas are not identical")
	case !r.complete:
		return fmt.Errorf("only %d events were learned", r.Learned)
	}
	return nil
}

func (d *demo) print(statuses []fleet.Status, r demoResult) {
	fmt.Fprintln(d.out)
	printFleet(d.out, statuses)
	if r.Identical {
		fmt.Fprintf(d.out, "All %d replicas are identical, bit for bit.\n", len(statuses))
	} else {
		fmt.Fprintln(d.out, "THE REPLICAS DIFFER.")
	}
}

// invite prints what to try next, each with the server's address so that
// no one's selected context is hit by accident.
func (d *demo) invite() {
	if d.door != nil {
		fmt.Fprintf(d.out, `
Watch it, try it and teach it on the page at %[1]s, or over HTTP:

  curl -s %[1]s/predict --json '{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}'
`, d.door.URL())
	}
	fmt.Fprintf(d.out, `
Try it from another terminal (nats is github.com/nats-io/natscli):

  # which species is this?
  nats -s %[1]s req penguins.predict '{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}'

  # teach it the right answer, and wait until it is learned
  nats -s %[1]s req penguins.teach '{"attributes":{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"},"species":"Gentoo"}'

  # or just append to the log
  nats -s %[1]s pub penguins.learn '{"attributes":{"island":"Dream","bill_length_mm":null,"bill_depth_mm":18.2,"flipper_length_mm":195,"body_mass_g":3700,"sex":null},"species":"Adelie"}'

  # the fleet at a glance
  nats -s %[1]s req penguins.status '' --replies=0 --timeout 1s
  nats -s %[1]s micro ls
  go run ./cmd/lockstep status -s %[1]s

Ctrl-C stops it; what was learned is kept in %[2]s.
`, d.url, d.options.store)
}
