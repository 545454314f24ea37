package worker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// JoinConfig says what a worker joins, and how.
type JoinConfig struct {
	Connect  bus.ConnectConfig
	Name     string // the replica's own, unique in the fleet
	Version  string // the program's, semantic
	Spec     *model.Spec
	Replicas int // of the streams that are made; 0 is 1
	Logger   *slog.Logger
	OnState  func(fleet.State)
	Attach   func(*Worker)                   // if set, is given the worker once it is made, before it runs
	Tamper   func(*model.Model) *model.Model // see Config
}

// Serve connects a worker to NATS, makes what of the model's streams is not
// there yet, and runs it until ctx ends; see Worker.Run.
func Serve(ctx context.Context, config JoinConfig) error {
	named := config.Connect
	named.Name = "lockstep worker " + config.Name
	conn, err := bus.Connect(ctx, named)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it waited for a server
		}
		return err
	}
	defer conn.Close()
	w, err := join(ctx, config, conn)
	for errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil { // the server went away again; each step can be taken twice
		config.Logger.Warn("the server does not answer; trying on", "replica", config.Name, "error", err)
		w, err = join(ctx, config, conn)
	}
	if ctx.Err() != nil {
		return nil // stopped before it had begun
	}
	if err != nil {
		return err
	}
	if config.Attach != nil {
		config.Attach(w)
	}
	return w.Run(ctx)
}

func join(ctx context.Context, config JoinConfig, conn *bus.Conn) (*Worker, error) {
	var err error
	if config.Spec, err = fitSpec(ctx, conn, config.Spec); err != nil {
		return nil, err
	}
	name := config.Spec.Name
	stream := bus.StreamName(name)
	log, err := bus.OpenLog(ctx, conn, bus.LogConfig{Model: name, Replicas: config.Replicas, Genesis: func() []byte {
		return model.NewGenesis(config.Spec, bus.NewID())
	}})
	if err != nil {
		return nil, err
	}
	counts, counted := fleet.CountsName(name)
	predicted, err := bus.OpenCounter(ctx, conn, counts, counted, config.Replicas)
	if err != nil {
		return nil, err
	}
	notes, reported := fleet.VerdictsName(name)
	verdicts, err := bus.OpenNotes(ctx, conn, notes, reported, config.Replicas)
	if err != nil {
		return nil, err
	}
	buckets, err := fleet.OpenBuckets(ctx, conn, name, config.Replicas)
	if err != nil {
		return nil, err
	}
	var differs *bus.DiffersError
	if err := bus.VerifyStores(ctx, conn, fleet.Stores(name, 0, nil)); errors.As(err, &differs) {
		config.Logger.Warn("the streams are "+differs.Error(), "replica", config.Name)
	} else if err != nil {
		return nil, err
	}
	return New(Config{
		Heartbeats: buckets.Heartbeats, Checkpoints: buckets.Checkpoints, Snapshots: buckets.Snapshots,
		Advise: func(subject string, data []byte) { _ = conn.Publish(subject, data) }, // who is not heard now is in the status
		Name:   config.Name, Stream: stream, Version: config.Version, Spec: config.Spec,
		Log: log, Services: bus.Doors{Conn: conn},
		Predicted: predicted, Verdicts: verdicts, Logger: config.Logger, OnState: config.OnState, Tamper: config.Tamper,
	})
}

// fitSpec is a spec that compiles: for a new log by all rules, and for a log
// that was made with it by those that were in force then.
func fitSpec(ctx context.Context, conn *bus.Conn, spec *model.Spec) (*model.Spec, error) {
	_, unfit := model.New(spec)
	if unfit == nil {
		return spec, nil
	}
	log, err := bus.BindLog(ctx, conn, bus.LogConfig{Model: spec.Name})
	if errors.Is(err, bus.ErrNoLog) {
		return nil, unfit
	}
	if err != nil {
		return nil, err
	}
	if _, end, err := log.End(ctx); err != nil || end == 0 { // anyone who appends its genesis begins it
		return nil, cmp.Or(err, unfit)
	}
	logged := *spec
	logged.Logged = true // if it has another, the worker finds that and refuses
	if _, err := model.New(&logged); err != nil {
		return nil, err
	}
	return &logged, nil
}
