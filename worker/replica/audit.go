package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// maxHealings is at which healing a replica is quarantined after all.
const maxHealings = 3

// Times of the audit.
const (
	auditEvery     = 250 * time.Millisecond
	auditSettles   = 2 * beatEvery    // before a checkpoint is done with
	attestPatience = 30 * time.Second // for the others' attestations of a checkpoint
	trialPatience  = 2 * time.Minute  // for others that replay from the start
	attestKept     = 16               // checkpoints whose attestations are kept
)

// audit compares a replica with the others at every checkpoint, and takes it
// out of the fleet if it is wrong. Its goroutine owns all but what is said to
// be guarded.
type audit struct {
	r     *Replica
	inbox chan *checkpoint

	open   []*checkpoint // not settled yet, the newest last
	kept   []uint64      // checkpoints attested, oldest first
	agreed uint64        // the last checkpoint on which all agreed
	// differed is the last checkpoint at which another replica differed and
	// this one went on.
	differed uint64
	trial    *trial
	passed   int  // how often the trial's checkpoint was found to be missing
	folds    int  // how often a trial had the replica fold again
	done     bool // the replica is condemned: nothing is compared any more

	epoch    int // of what is known here
	healings int
	newest   fleet.Snapshot // the newest that is pointed to, as far as known
	since    time.Time      // when that was found, or the worker began

	// due holds a token while a snapshot is to be written at the next
	// checkpoint; anyone who takes it writes one.
	due chan struct{}
}

// checkpoint is a sequence at which this replica attests.
type checkpoint struct {
	fleet.Attestation
	state   []byte // the encoded state, if a snapshot is to be written
	asked   bool   // the snapshot was asked for
	at      time.Time
	written bool // the attestation is on the board
	// The tail was started again, to see whether the log still holds what
	// this replica has applied.
	rechecked bool
	agree     []string               // the replicas that agree, this one included
	beside    chan fleet.Attestation // of a fold beside a replica that is alone
	epoch     int
}

// trial is a replica under suspicion: it has left the group, replays from the start, and
// attests the checkpoint again.
type trial struct {
	before fleet.Attestation
	after  *fleet.Attestation // nil until it has folded to there again
	since  string             // where the fold first went another way than the one before
	began  time.Time
	base   uint64                 // the last checkpoint on which all agreed: no later snapshot is trusted
	shadow chan fleet.Attestation // of a fold beside the replica; nil until there is no other way
}

func newAudit(r *Replica) *audit {
	return &audit{r: r, inbox: make(chan *checkpoint, 256), since: time.Now(), due: make(chan struct{}, 1)}
}

// attest hands the state at a checkpoint to the audit. It never holds up the
// fold: of a long replay only the newest checkpoints are attested.
func (a *attempt) attest(msg *model.Message) {
	r := a.r
	c := &checkpoint{at: time.Now(), epoch: a.plan.epoch, asked: fleet.WantsSnapshot(msg)}
	ready := r.State() == fleet.Ready
	m := r.Lock()
	c.Attestation = fleet.Attest(m)
	if ready && (r.audit.wanted() || c.asked) {
		c.state = m.AppendState(nil)
	}
	r.Unlock()
	c.Replica, c.Boot, c.Fold = r.cfg.Name, r.cfg.Boot, a.plan.fold
	r.attested.Store(&c.Attestation)
	r.audit.hand(c)
}

// wanted reports whether a snapshot is to be written, and takes that on. It is
// called by the fold.
func (a *audit) wanted() bool {
	select {
	case <-a.due:
		return true
	default:
		return false
	}
}

// hand gives the audit a checkpoint; if it is behind, in the place of an older
// one. It is called by the fold.
func (a *audit) hand(c *checkpoint) {
	for {
		select {
		case a.inbox <- c:
			return
		default:
		}
		select {
		case <-a.inbox:
		default:
		}
	}
}

// run audits until ctx ends.
func (a *audit) run(ctx context.Context) {
	tick := time.NewTicker(auditEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case c := <-a.inbox:
			a.take(c)
			for len(a.inbox) > 0 {
				a.take(<-a.inbox)
			}
		case <-tick.C:
		}
		if epoch := a.r.Standing().Epoch; epoch != a.epoch {
			a.forget(ctx, epoch)
		}
		a.write(ctx)
		a.void()
		a.compare(ctx)
		if n%20 == 0 {
			a.tidy(ctx)
		}
	}
}

// take adds a checkpoint that the fold has reached.
func (a *audit) take(c *checkpoint) {
	if c.epoch != a.r.Standing().Epoch {
		return // of a log that is no more
	}
	a.open = slices.DeleteFunc(a.open, func(o *checkpoint) bool { return o.Seq == c.Seq })
	a.open = append(a.open, c)
	if i := slices.IndexFunc(a.open, func(o *checkpoint) bool { return !a.tries(o) }); len(a.open) > attestKept &&
		i >= 0 {
		a.open = slices.Delete(a.open, i, i+1)
	}
	if t := a.trial; t != nil && c.Seq == t.before.Seq && c.Fold > t.before.Fold {
		t.after = &c.Attestation
		a.r.events.send(reproduced{})
	}
}

// void ends a trial whose checkpoint is no more: replayed from the start, the log has none
// there, for it was taken back meanwhile.
func (a *audit) void() {
	t, s := a.trial, a.r.Standing()
	past := s.Fold == a.folds && s.State == fleet.Replaying && a.r.Applied() >= s.Target
	if t == nil || t.after != nil || !past || len(a.inbox) > 0 {
		a.passed = 0
		return
	}
	if a.passed++; a.passed < 4 { // its attestation may be on its way
		return
	}
	a.open = slices.DeleteFunc(a.open, func(c *checkpoint) bool { return c.Seq == t.before.Seq })
	a.trial = nil
	a.r.events.send(cleared{})
	a.r.settled()
	a.r.advise(
		"cleared",
		fmt.Sprintf(
			"folded anew, the log has no checkpoint at %d: it was taken back, and so is the doubt about this replica",
			t.before.Seq,
		),
	)
}

// tries reports whether a checkpoint is the one that this replica is on trial
// for.
func (a *audit) tries(c *checkpoint) bool { return a.trial != nil && a.trial.before.Seq == c.Seq }

// forget drops what is known of a log that is no more, and takes back what was
// attested of it.
func (a *audit) forget(ctx context.Context, epoch int) {
	for _, seq := range a.kept {
		if err := fleet.RemoveAttestation(ctx, a.r.cfg.Checkpoints, seq, a.r.cfg.Name); err != nil {
			return // again at the next tick
		}
	}
	if a.trial != nil {
		a.trial = nil
		a.r.events.send(cleared{})
	}
	a.r.settled()
	a.open = slices.DeleteFunc(a.open, func(c *checkpoint) bool { return c.epoch != epoch })
	a.kept, a.agreed, a.differed, a.newest, a.epoch = nil, 0, 0, fleet.Snapshot{}, epoch
}

// write puts the attestations that are not on the board yet.
func (a *audit) write(ctx context.Context) {
	for _, c := range a.open {
		if c.written {
			continue
		}
		if err := fleet.PutAttestation(ctx, a.r.cfg.Checkpoints, c.Attestation); err != nil {
			a.r.log.Debug("an attestation could not be written; trying on", "seq", c.Seq, "error", err)
			return
		}
		c.written = true
		if !slices.Contains(a.kept, c.Seq) {
			a.kept = append(a.kept, c.Seq)
			slices.Sort(a.kept) // replayed from the start, it comes by older ones again
		}
	}
}

// compare rules on every checkpoint that is not settled.
func (a *audit) compare(ctx context.Context) {
	peers := a.r.Fleet()
	if peers == nil {
		return // a replica that cannot see the fleet must not rule
	}
	voters := fleet.Voters(peers)
	open := slices.Clone(a.open)
	slices.Reverse(open)
	// The trial's first: reading may take long, or fail.
	slices.SortStableFunc(open, func(x, y *checkpoint) int {
		if a.tries(x) == a.tries(y) {
			return 0
		} else if a.tries(x) {
			return -1
		}
		return 1
	})
	for _, c := range open {
		if !c.written {
			continue
		}
		votes, err := fleet.Attestations(ctx, a.r.cfg.Checkpoints, c.Seq)
		if err != nil {
			a.r.log.Debug("the attestations cannot be read; trying on", "seq", c.Seq, "error", err)
			return
		}
		votes = fleet.Current(votes, peers)
		mine, electorate := c.Attestation, voters
		if a.tries(c) && a.trial.after != nil {
			// It has just read the log. Who has read another is not wrong in
			// its state, and finds out by itself: the log is the truth.
			votes, electorate = fleet.SameLog(mine, votes, voters)
		}
		r, differ := fleet.Judge(mine, votes, electorate)
		c.agree = fleet.Agreeing(mine, votes, electorate)
		if !c.rechecked &&
			slices.ContainsFunc(differ, func(d fleet.Attestation) bool { return d.LogChain != mine.LogChain }) {
			c.rechecked = true
			a.r.events.send(doubted{})
		}
		if a.settle(ctx, c, r, differ, peers) || time.Since(c.at) > attestPatience && a.trial == nil && c.beside == nil {
			a.open = slices.DeleteFunc(a.open, func(o *checkpoint) bool { return o == c })
		}
	}
}

// settle does what a ruling asks for, and returns whether the checkpoint is
// done with.
func (a *audit) settle(
	ctx context.Context, c *checkpoint, r fleet.Ruling, differ []fleet.Attestation, peers []fleet.Heartbeat,
) bool {
	onTrial := a.tries(c)
	switch {
	case a.done, a.r.State() == fleet.Failed:
		return true
	case onTrial && a.trial.after == nil:
		return false
	case onTrial:
		return a.verdict(ctx, c, r, differ, peers)
	case r == fleet.Unanimous && time.Since(c.at) < auditSettles:
		return false // somebody's heartbeat may be on its way
	case r == fleet.Unanimous && len(c.agree) == 1:
		a.reconciled(c)
		return a.alone(ctx, c)
	case r == fleet.Unanimous:
		a.reconciled(c)
		a.agreed = max(a.agreed, c.Seq)
		a.snapshot(ctx, c)
		return true
	case r == fleet.Upheld:
		a.differed = max(a.differed, c.Seq)
		a.r.advise(
			"diverged",
			fmt.Sprintf(
				"at sequence %d %s; this replica agrees with the majority and goes on", c.Seq,
				a.differences(c, differ),
			),
		)
		a.snapshot(ctx, c)
		return true
	case (r == fleet.Outvoted || r == fleet.Split) && a.trial == nil:
		a.try(c, a.differences(c, differ))
	}
	return false
}

// reconciled ends what was said of another replica that differed: at a later
// checkpoint all agree.
func (a *audit) reconciled(c *checkpoint) {
	if a.trial == nil && c.Seq > a.differed {
		a.r.settled()
	}
}

// try puts this replica on trial.
func (a *audit) try(c *checkpoint, why string) {
	a.r.advise("diverged", fmt.Sprintf("at sequence %d %s; this replica leaves the group and folds anew", c.Seq, why))
	a.trial = &trial{before: c.Attestation, base: a.agreed, began: time.Now()}
	a.refold()
}

// refold has the replica leave the group and fold again.
func (a *audit) refold() {
	a.folds++
	a.r.events.send(suspected{a.trial.base})
}

// condemn ends the trial, and takes the replica out of the fleet for good.
func (a *audit) condemn(why string) {
	a.trial, a.done = nil, true
	a.r.events.send(condemned{why})
}

// alone settles a checkpoint that no one else has attested. A snapshot of it
// would be believed by all who come later, so a fold beside the replica, in
// other memory, must come to the same state first.
func (a *audit) alone(ctx context.Context, c *checkpoint) (done bool) {
	if c.beside == nil {
		if c.state == nil || a.trial != nil ||
			slices.ContainsFunc(a.open, func(o *checkpoint) bool { return o.beside != nil }) {
			return true
		}
		c.beside = make(chan fleet.Attestation, 1)
		a.r.side.Go(func() { a.r.shadow(ctx, c.Seq, c.Seq-1, c.beside) })
	}
	select {
	case beside := <-c.beside:
		switch {
		case !beside.Comparable(c.Attestation) || beside.LogChain != c.LogChain: // it failed, or read another log
		case beside.Same(c.Attestation):
			a.snapshot(ctx, c)
		case a.trial == nil:
			a.try(c, "a fold beside this replica gives another state")
			return false
		}
		return true
	default:
		return false
	}
}

// verdict ends a trial once that is possible.
func (a *audit) verdict(
	ctx context.Context, c *checkpoint, r fleet.Ruling, differ []fleet.Attestation, peers []fleet.Heartbeat,
) bool {
	t := a.trial
	if t.after.LogChain != t.before.LogChain { // rolled back in between: two folds of two logs prove nothing
		t.before, t.after, t.base = *t.after, nil, a.agreed
		a.refold()
		return false
	}
	reproduced := t.after.Same(t.before)
	if _, state := a.r.core.differed(); state > 0 {
		t.since = fmt.Sprintf(", first at %d", state)
	}
	waits := slices.ContainsFunc(peers, func(p fleet.Heartbeat) bool { return p.Refolding && p.Replica != c.Replica }) &&
		time.Since(t.began) < trialPatience
	if r == fleet.Undecided && waits {
		return false
	}
	switch r {
	case fleet.Undecided, fleet.Unanimous, fleet.Upheld:
		a.trial = nil
		if reproduced {
			a.r.events.send(cleared{})
			a.r.settled()
			a.r.advise("cleared", fmt.Sprintf("at sequence %d this replica was right: folded anew it is the same", c.Seq))
			return r != fleet.Undecided
		}
		a.healings++
		a.r.healings.Store(int64(a.healings))
		if a.healings >= maxHealings {
			a.condemn(
				fmt.Sprintf(
					"it was healed %d times, last at sequence %d: its machine, or the program, is not to be trusted",
					a.healings, c.Seq,
				),
			)
			return true
		}
		a.r.events.send(cleared{})
		a.r.settled()
		a.r.advise(
			"healed",
			fmt.Sprintf(
				"at sequence %d this replica was wrong%s, folded anew, and is right now (healing %d; at the %drd it is "+
					"quarantined)",
				c.Seq, t.since, a.healings, maxHealings,
			),
		)
		return r != fleet.Undecided
	case fleet.Outvoted:
		a.trial = nil
		a.condemn(fmt.Sprintf("folded anew it still differs: at sequence %d %s", c.Seq, a.differences(c, differ)))
		return true
	}
	// No majority: anyone who did not reproduce its own state is wrong for sure,
	// once no one else may still come to agree with it.
	if !reproduced && !waits {
		a.trial = nil
		a.condemn(
			fmt.Sprintf(
				"folded twice it is not the same: at sequence %d%s, before %.12s, then %.12s", c.Seq, t.since,
				t.before.Digest, t.after.Digest,
			),
		)
		return true
	}
	// It may reproduce what is wrong: a fold beside the replica, in other
	// memory, tells.
	if reproduced && !waits && t.shadow == nil {
		t.shadow = make(chan fleet.Attestation, 1)
		a.r.side.Go(func() { a.r.shadow(ctx, c.Seq, min(t.base, c.Seq-1), t.shadow) })
	}
	select {
	case shadow := <-t.shadow:
		if shadow.Comparable(*t.after) && shadow.LogChain == t.after.LogChain && !shadow.Same(*t.after) {
			a.trial = nil
			a.condemn(
				fmt.Sprintf(
					"a fold beside it gives another state: at sequence %d %.12s, and not %.12s", c.Seq,
					shadow.Digest, t.after.Digest,
				),
			)
			return true
		}
	default:
	}
	a.r.advise(
		"split",
		fmt.Sprintf(
			"at sequence %d %s, and there is no majority: nobody serves until lockstep verify tells who is right, or "+
				"another replica joins",
			c.Seq, a.differences(c, differ),
		),
	)
	return false
}

// differences says who differs from this replica, and in what.
func (a *audit) differences(c *checkpoint, differ []fleet.Attestation) string {
	mine := c.Attestation
	var log, state []string
	for _, d := range differ {
		if d.LogChain != mine.LogChain {
			log = append(log, d.Replica)
		} else {
			state = append(state, d.Replica)
		}
	}
	var out []string
	if len(log) > 0 {
		out = append(
			out,
			fmt.Sprintf(
				"the log that %s read is not the one that %s read: the servers hold different histories after sequence %d",
				strings.Join(log, ", "), mine.Replica, a.agreed,
			),
		)
	}
	if len(state) > 0 {
		out = append(
			out,
			fmt.Sprintf("the state of %s is not that of %s, of the same log", strings.Join(state, ", "), mine.Replica),
		)
	}
	return strings.Join(out, ", and ")
}

// want has a snapshot written at the next checkpoint, or not.
func (a *audit) want(due bool) {
	if due {
		select {
		case a.due <- struct{}{}:
		default:
		}
		return
	}
	a.wanted()
}

// tidy removes the attestations of old checkpoints, but for those of
// snapshots, and looks for the newest snapshot. One replica does it for all.
func (a *audit) tidy(ctx context.Context) {
	snapshots, err := fleet.Snapshots(ctx, a.r.cfg.Checkpoints)
	if err != nil {
		return
	}
	if n := len(snapshots); n > 0 && snapshots[n-1].Seq > a.newest.Seq {
		a.newest, a.since = snapshots[n-1], time.Now()
	}
	rank := fleet.Rank(a.r.Fleet(), a.r.cfg.Name)
	a.want(time.Since(a.since) > a.r.cfg.SnapshotEvery+time.Duration(rank)*snapshotStagger)
	for len(a.kept) > attestKept {
		old := a.kept[0]
		pointed := slices.ContainsFunc(snapshots, func(s fleet.Snapshot) bool { return s.Seq == old })
		if rank == 0 && !pointed {
			if err := fleet.RemoveAttestations(ctx, a.r.cfg.Checkpoints, old); err != nil {
				return
			}
		}
		a.kept = a.kept[1:]
	}
}

// shadow folds the log to a sequence into a model of its own, from a snapshot
// no later than limit, and tells what that attests; nothing if it can't.
func (r *Replica) shadow(ctx context.Context, seq, limit uint64, out chan<- fleet.Attestation) {
	defer close(out)
	first, last, err := r.end(ctx)
	if err != nil {
		return
	}
	incarnation, _ := r.incarnation(ctx)
	m, _ := r.usable(ctx, incarnation, first, last, limit)
	if m == nil {
		if m, err = model.New(r.cfg.Spec); err != nil {
			return
		}
	}
	a, err := FoldTo(ctx, r.cfg.Log, m, seq)
	if err != nil {
		r.log.Warn("the fold beside the replica failed", "error", err)
		return
	}
	out <- a
}

// FoldTo folds a log into a model to a sequence, and returns what that
// attests. It returns a *bus.GapError or *bus.RolledBackError as a tail does.
func FoldTo(
	ctx context.Context, log Log, m *model.Model, seq uint64,
	seen ...func(*model.Model),
) (fleet.Attestation, error) {
	name := m.Spec().Name
	from := bus.Position{Applied: m.Seq(), Check: func(msg *bus.Message) bool { return m.IsTip(Message(name, msg)) }}
	var a fleet.Attestation
	err := follow(ctx, log, from, m.Spec(), func(e *entry) error {
		m.ApplyEntry(&e.Entry)
		for _, f := range seen {
			f(m)
		}
		if e.Seq < seq {
			return nil
		}
		a = fleet.Attest(m)
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return a, err
}

// errEnough ends a tail that has delivered what was wanted.
var errEnough = errors.New("enough")
