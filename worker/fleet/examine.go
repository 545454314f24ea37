package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// snapshotBehind is how many messages a worker that starts cold may have to
// replay before that is said.
const snapshotBehind = 10 * CheckpointEvery

// Examine looks at a model's log, at its fleet, and at what the fleet keeps.
// It asks the fleet for its states, and waits for them as long as wait. own is
// the spec that the fleet should serve; nil is that of the log.
func Examine(ctx context.Context, conn *bus.Conn, name string, own *model.Spec, wait time.Duration) (f bus.Findings) {
	e := &examination{Findings: &f, name: name}
	e.log(ctx, conn, own)
	e.fleet(ctx, conn, wait)
	e.kept(ctx, conn)
	return f
}

type examination struct {
	*bus.Findings
	name        string
	genesis     Identity // the log's; empty where not known
	spec        *model.Spec
	tail        *bus.Log // the log, nil if it cannot be read
	first, last uint64
	statuses    []Status
}

func (e *examination) log(ctx context.Context, conn *bus.Conn, own *model.Spec) {
	log, err := bus.UnboundLog(conn, bus.LogConfig{Model: e.name})
	if err == nil {
		e.first, e.last, err = log.End(ctx)
	}
	if errors.Is(err, bus.ErrNoLog) {
		return // the streams' own finding
	}
	if err != nil {
		e.Error("log", err)
		return
	}
	e.tail = log
	if e.first > 1 {
		return // the genesis is in the base
	}
	data, err := bus.Genesis(ctx, conn, e.name)
	if err != nil {
		e.Error("log", err)
		return
	}
	e.readGenesis(data, own)
}

func (e *examination) readGenesis(data []byte, own *model.Spec) {
	if data == nil {
		return
	}
	g, err := model.ParseGenesis(data)
	if err == nil {
		e.spec, err = g.ParseSpec()
	}
	if err != nil {
		e.Add(
			bus.Fail, "contract", "the log is of another program or another version: use that",
			"the log's genesis cannot be read: %v", err,
		)
		return
	}
	e.genesis = GenesisIdentity(g)
	if own != nil {
		mine := ContractOf(own)
		if e.genesis.Differs(Identity{Contract: mine}) != 0 {
			e.Add(
				bus.Fail, "contract",
				"start workers with the log's spec (nats stream get "+bus.StreamName(
					e.name,
				)+" 1), or give the new model a name of its own",
				"the log was made with the contract %.16s, and this spec is %.16s", g.Contract, mine,
			)
			return
		}
	}
	e.OK("contract", "%.16s, of the log %s", g.Contract, g.Incarnation)
}

// fleet looks at what the workers say of themselves.
func (e *examination) fleet(ctx context.Context, conn *bus.Conn, wait time.Duration) {
	answers, err := bus.Gather(ctx, conn, e.name+".status", nil, wait)
	if errors.Is(err, bus.ErrNobody) {
		e.Add(
			bus.Fail, "fleet", "start at least two: lockstep worker",
			"no worker runs: nobody answers, and what is published waits in the log",
		)
		return
	}
	if err != nil {
		e.Error("fleet", err)
		return
	}
	for _, a := range answers {
		s, reason := ReadStatus(a.Data)
		if reason != "" {
			e.Add(
				bus.Fail, "fleet", "see who answers there: nats micro ls", "the status of %q cannot be read: %s",
				s.Replica, reason,
			)
			continue
		}
		e.statuses = append(e.statuses, s)
	}
	slices.SortFunc(e.statuses, func(a, b Status) int { return strings.Compare(a.Replica, b.Replica) })
	ready := 0
	for i, s := range e.statuses {
		if s.State == Ready.String() {
			ready++
		}
		e.worker(s)
		for _, other := range e.statuses[:i] {
			e.pair(other, s)
		}
	}
	switch {
	case ready == 0:
		e.Add(
			bus.Fail, "fleet", "see why in its status: lockstep status; and start another",
			"%d workers run, and none is ready: nobody answers", len(e.statuses),
		)
	case ready == 1:
		e.Add(
			bus.Warn, "fleet", "start a second one, better a third: lockstep worker",
			"one worker alone is ready: if it stops nobody answers, and nobody bears its state out",
		)
	default:
		e.OK("fleet", "%d of %d workers are ready", ready, len(e.statuses))
	}
	e.vocabularies()
}

// vocabularies looks how much room there is for new values.
func (e *examination) vocabularies() {
	var fullest *model.Vocabulary
	var nearly bool
	var seq uint64
	for i := range e.statuses {
		if s := &e.statuses[i]; s.Seq >= seq {
			seq = s.Seq
			fullest, nearly = s.Fullest()
		}
	}
	switch {
	case nearly:
		e.Add(
			bus.Warn, "vocabularies",
			"begin a log with another spec: a greater max_values, or overflow: other (an id in such a column belongs in id)",
			"%q has %d values, and there is room for %d; an event with one more is rejected, or counted as other",
			fullest.Name, fullest.Values, fullest.Most,
		)
	case fullest != nil:
		e.OK("vocabularies", "the fullest is %q, with %d of %d values", fullest.Name, fullest.Values, fullest.Most)
	}
}

// worker looks at one.
func (e *examination) worker(s Status) {
	check := "worker " + s.Replica
	before := len(*e.Findings)
	switch {
	case s.State == Quarantined.String():
		e.Add(
			bus.Fail, check,
			"its machine may be failing: run lockstep verify, start a worker elsewhere, and then stop this one",
			"it is quarantined: its state was not the fleet's",
		)
	case s.State != Ready.String():
		e.Add(
			bus.Warn, check, "wait; if it stays so, see its log", "it is %s at sequence %d, %d messages behind",
			s.State, s.Seq, s.Lag,
		)
	case s.Lag > MaxBehind:
		e.Add(
			bus.Warn, check, "give it more CPU, or publish in batches (lockstep learn does)",
			"it is %d messages behind the log", s.Lag,
		)
	}
	if s.Differs(e.genesis).Has(OtherContract) {
		e.Add(
			bus.Fail, check, "stop it, and start it with the log's spec",
			"it has the contract %.16s, and the log %.16s", s.Contract, e.genesis.Contract,
		)
	}
	if s.Advisory != "" {
		e.Add(bus.Warn, check, "see the runbook, deploy/README.md", "it says: %s", s.Advisory)
	}
	if s.Dropped > 0 {
		e.Add(
			bus.Warn, check, "start more workers, or have clients ask less at once",
			"it has lost %d requests that came faster than it answers", s.Dropped,
		)
	}
	if s.Uncounted+int64(s.Unreported) > 0 {
		e.Add(
			bus.Warn, check, "see whether "+bus.StreamName(e.name)+"_COUNTS and _VERDICTS are well",
			"%d predictions were not counted, %d rejections not reported", s.Uncounted, s.Unreported,
		)
	}
	if len(*e.Findings) == before {
		e.OK(check, "%s at sequence %d, %d behind", s.State, s.Seq, s.Lag)
	}
}

// pair looks at two.
func (e *examination) pair(a, b Status) {
	both := a.Replica + " and " + b.Replica
	if a.Replica == b.Replica {
		e.Add(
			bus.Fail, "names", "give each its own: lockstep worker --name",
			"two workers have the name %s, and write over each other's word", a.Replica,
		)
		return
	}
	if a.Version != b.Version {
		e.Add(
			bus.Warn, "versions", "finish the upgrade: the same contract may mix, but not for ever",
			"%s run %s and %s", both, a.Version, b.Version,
		)
	}
	switch differ := a.Differs(b.Identity); {
	case differ.Has(OtherIncarnation):
		e.Add(
			bus.Fail, "agreement", "have them reach the same servers: compare their --server and accounts",
			"%s fold two logs, %s and %s", both, a.Incarnation, b.Incarnation,
		)
	case differ.Has(OtherEncoding):
		e.Add(
			bus.Warn, "agreement", "finish the upgrade: until then nobody compares them",
			"%s encode their states differently: %s and %s", both, a.Encoding, b.Encoding,
		)
	case differ == 0 && a.Seq == b.Seq && (a.LogChain != b.LogChain || a.StateChain != b.StateChain || a.Digest != b.Digest):
		e.Add(
			bus.Fail, "agreement", "lockstep verify says who is right, and the fleet quarantines the other",
			"%s differ at sequence %d: digests %.12s and %.12s", both, a.Seq, a.Digest, b.Digest,
		)
	}
}

// kept looks at heartbeats, attestations and snapshots.
func (e *examination) kept(ctx context.Context, conn *bus.Conn) {
	buckets, err := BindBuckets(ctx, conn, e.name)
	if errors.Is(err, bus.ErrNoBoard) {
		return // the streams' own finding
	}
	if err != nil {
		e.Error("heartbeats", err)
		return
	}
	buckets = buckets.Reporting(e.name, e.skipped)
	if beats, err := Heartbeats(ctx, buckets.Heartbeats); err != nil {
		e.Error("heartbeats", err)
	} else {
		for _, h := range beats {
			if !slices.ContainsFunc(e.statuses, func(s Status) bool { return s.Replica == h.Replica }) && len(e.statuses) > 0 {
				e.Add(bus.Warn, "heartbeats", "see whether it may serve "+e.name+".status, and whether it hangs", "%s says that it lives, and does not answer for its status", h.Replica)
			}
		}
	}
	e.attested(ctx, buckets)
	e.snapshots(ctx, buckets)
}

// skipped names the values of a bucket that cannot be read.
func (e *examination) skipped(bucket, _ string, all []Unreadable) {
	for _, u := range all {
		key := "'" + strings.ReplaceAll(u.Key, "'", `'\''`) + "'" // it may be a stranger's, and is for a shell
		e.Add(
			bus.Warn, "bucket "+bucket,
			fmt.Sprintf("unless a worker of another version wrote it, remove it: nats kv del %s %s", bucket, key),
			"a value cannot be read, and is skipped: %s", u,
		)
	}
}

// attested looks at the newest checkpoint that more than one has attested.
func (e *examination) attested(ctx context.Context, buckets Buckets) {
	all, err := AllAttestations(ctx, buckets.Checkpoints)
	if err != nil {
		e.Error("checkpoints", err)
		return
	}
	agreed := uint64(0)
	for i, a := range all {
		for _, b := range all[:i] {
			switch {
			case a.Arbiter || b.Arbiter || !a.Comparable(b):
			case !a.Same(b):
				e.Add(
					bus.Fail, "checkpoints",
					"lockstep verify says who is right; who is wrong is folded anew, or quarantined",
					"%s and %s attested different states at sequence %d", b.Replica, a.Replica, a.Seq,
				)
			default:
				agreed = max(agreed, a.Seq)
			}
		}
	}
	if agreed > 0 {
		e.OK("checkpoints", "replicas agreed at sequence %d", agreed)
	}
}

// snapshots looks at what a worker starts cold from, and at the log's head.
func (e *examination) snapshots(ctx context.Context, buckets Buckets) {
	all, err := Snapshots(ctx, buckets.Checkpoints)
	asides, err2 := RejectedSnapshots(ctx, buckets.Checkpoints)
	base, err3 := Base(ctx, buckets.Checkpoints)
	if err := errors.Join(err, err2, err3); err != nil {
		e.Error("snapshots", err)
		return
	}
	if e.tail == nil {
		return
	}
	for _, a := range asides {
		e.Add(
			bus.Warn, "snapshots", "nothing, if a newer one is good; see lockstep snapshot ls",
			"the snapshot of %d was set aside by %s: %s", a.Seq, a.Replica, a.Reason,
		)
	}
	all = slices.DeleteFunc(all, func(s Snapshot) bool {
		return slices.ContainsFunc(asides, func(a RejectedSnapshot) bool { return a.Object == s.Object })
	})
	e.head(ctx, buckets, base)
	if len(all) == 0 {
		if e.last > snapshotBehind {
			e.Add(
				bus.Warn, "snapshots", "have the fleet write one: lockstep snapshot put",
				"there is no snapshot: who starts cold replays all %d messages", e.last,
			)
		}
		return
	}
	newest := all[len(all)-1]
	age := "of unknown age"
	if msg, err := e.tail.Message(ctx, newest.Seq); err == nil {
		age = time.Since(msg.Time).Round(time.Second).String() + " old"
	}
	behind := e.last - min(e.last, newest.Seq)
	if behind > snapshotBehind {
		e.Add(
			bus.Warn, "snapshots", "have the fleet write one: lockstep snapshot put; and see why it did not",
			"the newest snapshot is of %d, %s: who starts cold replays %d messages", newest.Seq, age, behind,
		)
	}
	if e.spec == nil {
		return
	}
	if _, err := LoadSnapshot(ctx, buckets.Snapshots, e.spec, newest); err != nil && newest.Encoding == model.Encoding {
		e.Add(
			bus.Fail, "snapshots", "have the fleet write another: lockstep snapshot put",
			"the newest snapshot, of %d, cannot be used: %v", newest.Seq, err,
		)
		return
	}
	e.OK("snapshots", "the newest is of %d, %s, and is intact", newest.Seq, age)
}

// head looks at where the log begins.
func (e *examination) head(ctx context.Context, buckets Buckets, base *Snapshot) {
	const mend = "restore the log from its back-up (deploy/README.md), or keep a worker that has all of it running, " +
		"and run lockstep snapshot put"
	switch {
	case e.first <= 1:
		return
	case base == nil:
		e.Add(
			bus.Fail, "log", mend,
			"it begins at %d, and nobody keeps what came before: it was purged, and not by lockstep compact. A worker that "+
				"starts anew cannot learn across the hole",
			e.first,
		)
		return
	case base.Seq < e.first:
		e.Add(bus.Fail, "log", mend, "it begins at %d, and the base ends at %d: what is between is gone", e.first, base.Seq)
		return
	}
	e.readGenesis(base.Genesis, nil)
	if e.spec == nil {
		return
	}
	if _, err := LoadSnapshot(ctx, buckets.Snapshots, e.spec, *base); err != nil {
		e.Add(bus.Fail, "log", mend, "the base that it begins with, of %d, cannot be used: %v", base.Seq, err)
		return
	}
	e.OK("log", "it begins at %d, with a base that is intact", e.first)
}
