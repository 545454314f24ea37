package worker

import (
	"context"
	"errors"
	"log/slog"

	"lockstep/bus"
	"lockstep/model"
)

// JoinConfig says what a worker joins, and how.
type JoinConfig struct {
	Connect  bus.ConnectConfig
	Name     string // the replica's own, unique in the fleet
	Version  string // the program's, semantic
	Spec     *model.Spec
	Replicas int // of the streams that are made; 0 is 1
	Logger   *slog.Logger
	OnState  func(State)
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
	name := config.Spec.Name
	stream := bus.StreamName(name)
	log, err := bus.OpenLog(ctx, conn, bus.LogConfig{Model: name, Replicas: config.Replicas, Genesis: func() []byte {
		return model.NewGenesis(config.Spec, bus.NewID())
	}})
	if err != nil {
		return nil, err
	}
	counts, counted := countsName(name)
	predicted, err := bus.OpenCounter(ctx, conn, counts, counted, config.Replicas)
	if err != nil {
		return nil, err
	}
	notes, reported := verdictsName(name)
	verdicts, err := bus.OpenNotes(ctx, conn, notes, reported, config.Replicas)
	if err != nil {
		return nil, err
	}
	boards, err := OpenBoards(ctx, conn, name, config.Replicas)
	if err != nil {
		return nil, err
	}
	var differs *bus.DiffersError
	if err := bus.VerifyStores(ctx, conn, Stores(name, 0, nil)); errors.As(err, &differs) {
		config.Logger.Warn("the streams are "+differs.Error(), "replica", config.Name)
	} else if err != nil {
		return nil, err
	}
	return New(Config{
		Heartbeats: boards.Heartbeats, Checkpoints: boards.Checkpoints, Snapshots: boards.Snapshots,
		Advise: func(subject string, data []byte) { _ = conn.Publish(subject, data) }, // who is not heard now is in the status
		Name:   config.Name, Stream: stream, Version: config.Version, Spec: config.Spec,
		Log: log, Doors: bus.Doors{Conn: conn},
		Predicted: predicted, Verdicts: verdicts, Logger: config.Logger, OnState: config.OnState, Tamper: config.Tamper,
	})
}

// Boards are where a model's replicas leave word for each other.
type Boards struct {
	Heartbeats  *bus.Board
	Checkpoints *bus.Board // attestations and pointers to snapshots
	Snapshots   *bus.Blobs
}

// Names of a model's boards.
func bucketNames(name string) (heartbeats, checkpoints, snapshots string) {
	return name + "_replicas", name + "_checkpoints", name + "_snapshots"
}

func countsName(name string) (stream, subject string) {
	return bus.StreamName(name) + "_COUNTS", name + ".count.predicted"
}

func verdictsName(name string) (stream, subject string) {
	return bus.StreamName(name) + "_VERDICTS", name + ".verdict.>"
}

// boardConfigs are the two boards'.
func boardConfigs(name string, replicas int) (heartbeats, checkpoints bus.BoardConfig) {
	h, c, _ := bucketNames(name)
	return bus.BoardConfig{Bucket: h, Description: "heartbeats of the replicas", TTL: HeartbeatTTL, Replicas: replicas},
		bus.BoardConfig{Bucket: c, Description: "attestations and pointers to snapshots", Replicas: replicas}
}

const snapshotsDescription = "encoded states"

// Stores are all that a model keeps on the servers, the log first. 0 replicas
// are as many as there are, and 1 of what is made.
func Stores(name string, replicas int, genesis func() []byte) []bus.Store {
	heartbeats, checkpoints := boardConfigs(name, replicas)
	_, _, snapshots := bucketNames(name)
	counts, counted := countsName(name)
	verdicts, reported := verdictsName(name)
	return []bus.Store{
		bus.LogStore(bus.LogConfig{Model: name, Replicas: replicas, Genesis: genesis}),
		bus.NotesStore(verdicts, reported, replicas),
		bus.CounterStore(counts, counted, replicas),
		bus.BoardStore(heartbeats),
		bus.BoardStore(checkpoints),
		bus.BlobsStore(snapshots, snapshotsDescription, replicas),
	}
}

// OpenBoards binds a model's boards, and makes those that are not there.
func OpenBoards(ctx context.Context, conn *bus.Conn, name string, replicas int) (b Boards, err error) {
	heartbeats, checkpoints := boardConfigs(name, replicas)
	_, _, snapshots := bucketNames(name)
	if b.Heartbeats, err = bus.OpenBoard(ctx, conn, heartbeats); err != nil {
		return b, err
	}
	if b.Checkpoints, err = bus.OpenBoard(ctx, conn, checkpoints); err != nil {
		return b, err
	}
	b.Snapshots, err = bus.OpenBlobs(ctx, conn, snapshots, snapshotsDescription, replicas)
	return b, err
}

// BindBoards binds a model's boards, or returns bus.ErrNoBoard.
func BindBoards(ctx context.Context, conn *bus.Conn, name string) (b Boards, err error) {
	heartbeats, checkpoints, snapshots := bucketNames(name)
	if b.Heartbeats, err = bus.BindBoard(ctx, conn, heartbeats); err != nil {
		return b, err
	}
	if b.Checkpoints, err = bus.BindBoard(ctx, conn, checkpoints); err != nil {
		return b, err
	}
	b.Snapshots, err = bus.BindBlobs(ctx, conn, snapshots)
	return b, err
}
