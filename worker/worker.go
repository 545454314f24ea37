// Package worker is a process that hosts a replica of a model: it joins the
// log, the replica that folds it (package replica), and the requests that the
// replica answers (package serve).
package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
	"lockstep/worker/serve"
)

// Log is what a worker needs of its model's log. bus.Log is the real one. It
// is safe for concurrent use.
type Log interface {
	replica.Log
	serve.Log
}

// Config is what a worker is made of.
type Config struct {
	Name    string // the replica's own, unique in the fleet
	Stream  string // the log's, for replies
	Version string // the program's
	Spec    *model.Spec

	Log       Log
	Services  serve.Services
	Predicted serve.Counter
	Verdicts  replica.Verdicts

	// What replicas tell each other; without these the replica is alone.
	Heartbeats  fleet.KV // values vanish after fleet.HeartbeatTTL
	Checkpoints fleet.KV
	Snapshots   fleet.Objects
	// SnapshotEvery is how often a snapshot is written at most; 0 is a minute.
	SnapshotEvery time.Duration
	// Advise, if set, publishes what an operator should know.
	Advise func(subject string, data []byte)

	Logger *slog.Logger
	// OnState, if set, is called at each change of state.
	OnState func(fleet.State)
	// Tamper, if set, may put another model in the place of the replica's
	// after each message, as a failing machine would, or panic, as a faulty
	// component would. For tests.
	Tamper func(*model.Model) *model.Model
}

// Worker is one replica of a fleet, and the server that answers with it.
type Worker struct {
	Replica *replica.Replica
	Server  *serve.Server

	log  *slog.Logger
	open func(bus.ServiceConfig) (bus.Service, error)
}

// New makes a worker. It returns an error if its spec does not compile.
func New(cfg Config) (*Worker, error) {
	boot := bus.NewID()
	server := serve.New(serve.Config{
		Name: cfg.Name, Boot: boot, Stream: cfg.Stream, Version: cfg.Version, Spec: cfg.Spec,
		Log: cfg.Log, Services: cfg.Services, Predicted: cfg.Predicted, Logger: cfg.Logger,
	})
	r, err := replica.New(replica.Config{
		Name: cfg.Name, Boot: boot, Stream: cfg.Stream, Version: cfg.Version, Spec: cfg.Spec,
		Log: cfg.Log, Group: server, Verdicts: cfg.Verdicts,
		Heartbeats: cfg.Heartbeats, Checkpoints: cfg.Checkpoints, Snapshots: cfg.Snapshots, SnapshotEvery: cfg.SnapshotEvery,
		Advise: cfg.Advise, Logger: cfg.Logger, OnState: cfg.OnState, Tamper: cfg.Tamper,
	})
	if err != nil {
		return nil, err
	}
	server.Use(r)
	return &Worker{
		Replica: r, Server: server,
		log: cfg.Logger.With("replica", cfg.Name), open: cfg.Services.Open,
	}, nil
}

// Run serves until ctx ends, and then answers what it has accepted before it
// returns nil. It returns an error if the replica can't go on: the log has a
// hole (bus.GapError), or another contract (replica.ErrContract).
func (w *Worker) Run(ctx context.Context) error {
	status, err := w.open(w.Server.StatusService())
	if err != nil {
		return fmt.Errorf("status service: %w", err)
	}
	counting, stop := context.WithCancel(context.WithoutCancel(ctx))
	var counter sync.WaitGroup
	counter.Go(func() { w.Server.Run(counting) })
	err = w.Replica.Run(ctx)
	stop()
	counter.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if stopErr := status.Stop(last); stopErr != nil {
		w.log.Warn("the status service did not stop cleanly", "error", stopErr)
		status.Close()
	}
	w.Replica.Stopped()
	return err
}
