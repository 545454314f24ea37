package fleet

import (
	"context"

	"lockstep/bus"
)

// Buckets are where a model's replicas leave their records for each other.
type Buckets struct {
	Heartbeats  KV
	Checkpoints KV // attestations and pointers to snapshots
	Snapshots   *bus.Blobs
}

// Reporting returns the same buckets, whose readers say what they skip: report
// gets the name of a model's bucket and what was skipped below a key, which
// may be nothing.
func (b Buckets) Reporting(name string, report func(bucket, below string, skipped []Unreadable)) Buckets {
	heartbeats, checkpoints, _ := bucketNames(name)
	b.Heartbeats = Reported{b.Heartbeats, func(key string, skipped []Unreadable) { report(heartbeats, key, skipped) }}
	b.Checkpoints = Reported{b.Checkpoints, func(key string, skipped []Unreadable) { report(checkpoints, key, skipped) }}
	return b
}

// bucketNames are the names of a model's buckets.
func bucketNames(name string) (heartbeats, checkpoints, snapshots string) {
	return name + "_replicas", name + "_checkpoints", name + "_snapshots"
}

// CountsName is the stream of a model's counter of predictions, and its
// subject.
func CountsName(name string) (stream, subject string) {
	return bus.StreamName(name) + "_COUNTS", name + ".count.predicted"
}

// VerdictsName is the stream of a model's rejections, and its subjects.
func VerdictsName(name string) (stream, subject string) {
	return bus.StreamName(name) + "_VERDICTS", name + ".verdict.>"
}

// kvConfigs are the settings of a model's two buckets of small values.
func kvConfigs(name string, replicas int) (heartbeats, checkpoints bus.BoardConfig) {
	h, c, _ := bucketNames(name)
	heartbeats = bus.BoardConfig{
		Bucket: h, Description: "heartbeats of the replicas", TTL: HeartbeatTTL, Replicas: replicas,
	}
	checkpoints = bus.BoardConfig{
		Bucket: c, Description: "attestations and pointers to snapshots", Replicas: replicas,
	}
	return heartbeats, checkpoints
}

const snapshotsDescription = "encoded states"

// Stores are all that a model keeps on the servers, the log first. 0 replicas
// are as many as there are, and 1 of what is made.
func Stores(name string, replicas int, genesis func() []byte) []bus.Store {
	heartbeats, checkpoints := kvConfigs(name, replicas)
	_, _, snapshots := bucketNames(name)
	counts, counted := CountsName(name)
	verdicts, reported := VerdictsName(name)
	return []bus.Store{
		bus.LogStore(bus.LogConfig{Model: name, Replicas: replicas, Genesis: genesis}),
		bus.NotesStore(verdicts, reported, replicas),
		bus.CounterStore(counts, counted, replicas),
		bus.BoardStore(heartbeats),
		bus.BoardStore(checkpoints),
		bus.BlobsStore(snapshots, snapshotsDescription, replicas),
	}
}

// OpenBuckets binds a model's buckets, and makes those that are not there.
func OpenBuckets(ctx context.Context, conn *bus.Conn, name string, replicas int) (b Buckets, err error) {
	heartbeats, checkpoints := kvConfigs(name, replicas)
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

// BindBuckets binds a model's buckets, or returns bus.ErrNoBoard.
func BindBuckets(ctx context.Context, conn *bus.Conn, name string) (b Buckets, err error) {
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
