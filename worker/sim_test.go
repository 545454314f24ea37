package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/bus"
	"lockstep/bus/bustest"
	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
	"lockstep/worker/serve"
)

// The simulator: whole fleets of the production worker, where only the log,
// the boards, the blobs, the doors and the clock are replaced. Each run
// follows from its seed, as far as the scheduling of goroutines lets it, and
// each has a deadline on the fake clock.

var (
	simSeeds = flag.Int("sim.seeds", 50, "how many seeds the simulator runs")
	simFrom  = flag.Uint64("sim.from", 1, "the simulator's first seed")
	simJSON  = flag.Bool("sim.json", false, "print the simulator's figures as one line of JSON")
	simTrace = flag.Bool("sim.trace", false, "print what a run did if it failed")
)

// simKinds are the faults, and what they led to. With simMany seeds each must
// have fired.
var simKinds = []string{
	"crash", "restart", "lost_request", "lost_answer", "lost_reply", "duplicate_request", "repeat_stored", "tail_restart", "delay",
	"cut_log", "cut_boards", "cut_clients", "slow", "stale_end", "compact", "purge_above", "gap_refused", "unpurge",
	"recreate", "roll_back", "rolled_back_named", "bad_event",
	"snapshot_corrupt", "snapshot_truncated", "snapshot_missing", "snapshot_wrong", "snapshot_foreign", "snapshot_lying", "snapshot_future", "snapshot_torn",
	"group", "group_unacked", "group_repeated", "group_refused",
	"set_aside", "restored", "cold_start", "flip_once", "flip_always", "flip_always_same", "flip_again", "healed", "quarantined",
}

const (
	simMany     = 1000
	simDeadline = 30 * time.Minute // on the fake clock
	simSettle   = 5 * time.Minute  // on the fake clock, once all is healed
	simModel    = "sim"
)

const simSpecText = `
name: sim
semantics: river-0.26
input:
  island: {type: category, max_values: 16, max_bytes: 32}
  mass: {type: number, nullable: true, min: 0, max: 10000}
label: {name: species, type: category, max_values: 16, max_bytes: 32}
dedup: {window: 64}
pipeline:
  - union:
    - [{Select: [island]}, {OneHotEncoder: {drop_first: true}}]
    - [{Select: [mass]}, {StatImputer: {mass: Mean}}]
  - MultinomialNB: {alpha: 1}
`

// simTally is what all runs came to.
type simTally struct {
	mu     sync.Mutex
	runs   int
	failed []uint64
	wrong  map[string]int
	faults map[string]int
	fake   time.Duration
}

// TestSimulation runs fleets under every fault, each from its seed.
func TestSimulation(t *testing.T) {
	tally := &simTally{wrong: map[string]int{}, faults: map[string]int{}}
	var next atomic.Int64
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for core := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(core), func(t *testing.T) {
				t.Parallel()
				for {
					i := next.Add(1) - 1
					if i >= int64(*simSeeds) || tally.hopeless() {
						return
					}
					simulate(t, *simFrom+uint64(i), tally)
					tally.progress(began)
				}
			})
		}
	})
	for _, kind := range simKinds {
		if tally.runs >= simMany && tally.faults[kind] == 0 {
			t.Errorf("the fault %s never fired", kind)
		}
	}
	took := time.Since(began)
	t.Logf(
		"%d seeds in %s, %s each of %s on the fake clock: %v %v", tally.runs, took.Round(time.Millisecond),
		(took / time.Duration(max(tally.runs, 1))).Round(
			10*time.Microsecond,
		),
		(tally.fake / time.Duration(max(tally.runs, 1))).Round(time.Second), tally.wrong, tally.faults,
	)
	if *simJSON {
		faults := map[string]int{}
		for _, kind := range simKinds {
			faults[kind] = tally.faults[kind]
		}
		line, err := json.Marshal(map[string]any{
			"seeds": tally.runs, "from": *simFrom, "failed": len(tally.failed), "lost": tally.wrong["lost"], "duplicated": tally.wrong["duplicated"],
			"divergent": tally.wrong["divergent"], "stale": tally.wrong["stale"], "faults": faults, "seconds": took.Seconds(),
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stdout, string(line))
	}
}

// progress says how far a long simulation is, every 2,000 seeds.
func (y *simTally) progress(began time.Time) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.runs%2000 == 0 {
		fmt.Fprintf(
			os.Stderr, "%d of %d seeds, %d failed, %s\n", y.runs, *simSeeds, len(y.failed),
			time.Since(began).Round(time.Second),
		)
	}
}

// hopeless: enough seeds have failed to look at.
func (y *simTally) hopeless() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.failed) >= 10
}

func simulate(t *testing.T, seed uint64, tally *simTally) {
	var s *simRun
	synctest.Test(t, func(t *testing.T) {
		s = newSimRun(t, seed)
		s.run()
	})
	tally.mu.Lock()
	defer tally.mu.Unlock()
	tally.runs++
	tally.fake += s.took
	for kind, n := range s.faults {
		tally.faults[kind] += n
	}
	if len(s.violations) == 0 {
		return
	}
	tally.failed = append(tally.failed, seed)
	for _, v := range s.violations {
		tally.wrong[v.kind]++
	}
	v := s.violations[0]
	t.Errorf(
		"seed %d: %s: %s (%d violations); run only it: go test ./worker -run Simulation -sim.from %d -sim.seeds 1 -sim.trace",
		seed, v.kind, v.text, len(s.violations), seed,
	)
	if *simTrace {
		for _, v := range s.violations {
			s.trace = append(s.trace, "violation: "+v.kind+": "+v.text)
		}
		t.Log(strings.Join(s.trace, "\n"))
	}
}

// simViolation is an invariant that did not hold.
type simViolation struct{ kind, text string }

// simRun is one fleet's life.
type simRun struct {
	t      *testing.T
	ctx    context.Context
	random *rand.Rand // the driver's
	seed   uint64
	spec   *model.Spec
	took   time.Duration
	began  time.Time

	log         *bustest.Log
	heartbeats  *bustest.Board
	checkpoints *bustest.Board
	blobs       *bustest.Blobs
	oracle      *simOracle
	slots       []*simSlot
	every       time.Duration // Config.SnapshotEvery
	purges      int

	clients  sync.WaitGroup
	stopping atomic.Bool // no new operations
	public   *bustest.Way
	operator *bustest.Client

	mu         sync.Mutex
	processes  []*simProcess     // all there ever were
	router     []*simService     // the model's services that are open
	acked      map[string]uint64 // by key: where it was said to be learned
	counted    map[string]int64  // the counter's batches
	total      int64             // the counter
	faults     map[string]int    // by kind
	violations []simViolation    // in order
	trace      []string          // if asked for
	roll       *rand.Rand        // for whatever runs beside the driver
}

func newSimRun(t *testing.T, seed uint64) *simRun {
	s := &simRun{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 2)), roll: rand.New(rand.NewPCG(seed, 3)), began: time.Now(),
		acked: map[string]uint64{}, counted: map[string]int64{}, faults: map[string]int{},
	}
	var err error
	if s.random.IntN(12) == 0 {
		s.spec = model.DefaultSpec()
	} else {
		if s.spec, err = model.ParseSpec([]byte(simSpecText)); err != nil {
			t.Fatal(err)
		}
		s.spec.DedupWindow = []int{16, 64, 256, 2048}[s.random.IntN(4)]
	}
	s.log = bustest.NewLog(s.spec.Name, seed, s.genesis())
	s.log.Remember([]time.Duration{2 * time.Minute, 2 * time.Second, 200 * time.Millisecond}[s.random.IntN(3)])
	s.oracle = newSimOracle(s)
	s.log.Watch(
		bustest.Watch{
			Stored: s.oracle.stored, BackAt: s.oracle.backAt, MadeAnew: s.oracle.madeAnew,
			Unacked: s.oracle.unacked,
			Refused: func(data []byte) {
				if data[0] == '[' { // what clients send fits
					s.count("group_refused", 1)
				}
			},
		},
	)
	s.heartbeats, s.checkpoints, s.blobs = bustest.NewBoard(fleet.HeartbeatTTL), bustest.NewBoard(0), bustest.NewBlobs()
	s.public = bustest.NewWay(s.random.Uint64(), 16)
	s.operator = s.log.By(bustest.NewWay(0, 0))
	s.every = time.Duration(1+s.random.IntN(8)) * time.Second
	return s
}

func (s *simRun) genesis() []byte {
	return model.NewGenesis(s.spec, fmt.Sprintf("i%016x", s.random.Uint64()))
}

func (s *simRun) count(kind string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[kind] += n
}

func (s *simRun) violate(kind, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.violations) < 20 {
		text := fmt.Sprintf(format, args...)
		s.violations = append(s.violations, simViolation{kind, text})
		s.note("VIOLATION " + kind + ": " + text)
	}
}

func (s *simRun) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.violations) > 0
}

// note adds to the trace; the caller holds mu.
func (s *simRun) note(text string) {
	if *simTrace {
		s.trace = append(s.trace, fmt.Sprintf("%9.3f %s", time.Since(s.began).Seconds(), text))
	}
}

func (s *simRun) say(format string, args ...any) {
	if *simTrace {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.note(fmt.Sprintf(format, args...))
	}
}

// chance is true once in n times, for whatever runs beside the driver.
func (s *simRun) chance(n int) bool { return s.pick(n) == 0 }

func (s *simRun) pick(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roll.IntN(n)
}

// Write takes the workers' log into the trace.
func (s *simRun) Write(line []byte) (int, error) {
	s.say("%s", bytes.TrimSpace(line))
	return len(line), nil
}

func (s *simRun) logger() *slog.Logger {
	if !*simTrace {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(
		slog.NewTextHandler(
			s,
			&slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}},
		),
	)
}

// --- what is right: the test's own fold

// simNode is the state at a place of some history.
type simNode struct {
	seq, learned  uint64
	parent        *simNode
	inc           string
	state, digest [32]byte
	labels        [simProbes]string // what it predicts
	said          []simSaid         // of the message's events
}

// simSaid is what the fold said of an event that was learned.
type simSaid struct {
	event   string // its JSON
	learned uint64
	status  string
}

// ancestor is the state that a state came from, at a sequence.
func (n *simNode) ancestor(seq uint64) *simNode {
	for n != nil && n.seq > seq {
		n = n.parent
	}
	if n == nil || n.seq != seq {
		return nil
	}
	return n
}

// simRecord says where an event was learned.
type simRecord struct {
	node    *simNode
	learned uint64
	status  string
}

// simOracle folds whatever the log stores, at once, and remembers every state
// of every history that there ever was.
type simOracle struct {
	s      *simRun
	random *rand.Rand

	mu       sync.Mutex
	m        *model.Model
	twin     *model.Model // restored from a snapshot of m, and folded on
	tip      *simNode
	probes   [simProbes]model.Row
	known    map[[32]byte]*simNode  // by log chain
	receipts map[string][]*simNode  // of several histories there may be one
	records  map[string][]simRecord // by key
	claims   map[simPlace]*simRequest
	groups   map[string]int // how often a group is stored, by the id of its message
	named    []simNamed     // the learned ids of this history, in order
	last     map[string]int // by key: its last place in named
	saves    []simSave      // states of this history
}

// simPlace is where an event is, in some history.
type simPlace struct {
	node  *simNode
	index uint64
}

type simNamed struct {
	key string
	seq uint64
}

type simSave struct {
	node  *simNode
	state []byte
}

const simProbes = 3

func newSimOracle(s *simRun) *simOracle {
	o := &simOracle{
		s: s, random: rand.New(rand.NewPCG(s.seed, 4)), known: map[[32]byte]*simNode{},
		receipts: map[string][]*simNode{}, records: map[string][]simRecord{},
	}
	o.claims, o.groups = map[simPlace]*simRequest{}, map[string]int{}
	for i := range o.probes {
		row, err := model.NewDecoder(s.spec).Attributes([]byte(s.row(i)))
		if err != nil {
			s.t.Fatal(err)
		}
		o.probes[i] = row
	}
	return o
}

// row is the attributes of a probe, or of a number.
func (s *simRun) row(n int) string {
	mass := fmt.Sprint(n * 37 % 4000)
	if n%7 == 6 {
		mass = "null"
	}
	if s.spec.Name == simModel {
		return fmt.Sprintf(`{"island":"i%d","mass":%s}`, n%5, mass)
	}
	return fmt.Sprintf(
		`{"island":"i%d","bill_length_mm":%d,"bill_depth_mm":17,"flipper_length_mm":null,"body_mass_g":%s,"sex":"male"}`,
		n%5, n%60, mass,
	)
}

// event is a learn event; own is its own id, or empty.
func (s *simRun) event(n int, own string) string {
	if own != "" {
		own = fmt.Sprintf(`,"id":%q`, own)
	}
	return fmt.Sprintf(`{"attributes":%s,"species":"s%d"%s}`, s.row(n), n%4, own)
}

func (o *simOracle) madeAnew(genesis *bus.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.m, o.twin, o.tip, o.named, o.last, o.saves = o.fresh(), nil, nil, nil, map[string]int{}, nil
	o.fold(genesis)
}

func (o *simOracle) stored(msg *bus.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fold(msg)
}

// fold folds one message; the caller holds mu.
func (o *simOracle) fold(msg *bus.Message) {
	m := o.m
	in := replica.Message(o.s.spec.Name, msg)
	result := m.Apply(in)
	node := &simNode{
		seq: msg.Seq, learned: m.Learned(), parent: o.tip, inc: m.Incarnation(), state: m.StateChain(),
		digest: m.Digest(),
	}
	outcomes := append([]model.Outcome(nil), result.Outcomes...)
	for i := range o.probes {
		node.labels[i] = m.Predict(o.probes[i]).Label.Text
	}
	o.tip = node
	o.known[m.LogChain()] = node
	o.receipts[m.Receipt().String()] = append(o.receipts[m.Receipt().String()], node)
	keys := simKeys(msg.ID, msg.Data, len(outcomes))
	for i, x := range outcomes {
		o.judge(node, keys[i], x)
	}
	node.said = simSayings(msg.Data, outcomes)
	if isGroup(msg.ID, msg.Data) {
		if o.groups[msg.ID]++; o.groups[msg.ID] > 1 {
			o.s.count("group_repeated", 1)
		} else {
			o.s.count("group", 1)
		}
	}
	// A snapshot and its tail are the full replay, at every sequence.
	if o.twin != nil {
		o.twin.Apply(in)
		if o.twin.Digest() != node.digest || o.twin.StateChain() != node.state {
			o.s.violate("divergent", "a snapshot and its tail are not the full replay at sequence %d", msg.Seq)
		}
	}
	if o.random.IntN(24) == 0 {
		state := m.AppendState(nil)
		o.saves = append(o.saves, simSave{node, state})
		o.twin = o.restore(state)
	}
}

func (o *simOracle) restore(state []byte) *model.Model {
	m, err := model.Restore(o.s.spec, state)
	if err != nil {
		panic(err)
	}
	return m
}

// isGroup reports whether a message is a group of teaches: the ids that clients
// choose here have dashes, and those that a worker makes have none.
func isGroup(id string, data []byte) bool {
	return id != "" && !strings.Contains(id, "-") && len(data) > 0 && data[0] == '['
}

// simSayings are what the fold said of the events of a message.
func simSayings(data []byte, outcomes []model.Outcome) []simSaid {
	var events []json.RawMessage
	if err := json.Unmarshal(data, &events); err != nil {
		events = []json.RawMessage{data}
	}
	said := make([]simSaid, len(outcomes))
	for i, x := range outcomes {
		if x.Verdict == model.Learned && len(events) == len(outcomes) {
			said[i] = simSaid{string(events[i]), x.Answer.Learned, simSentence(x.Answer)}
		}
	}
	return said
}

// unacked counts the groups whose acknowledgement got lost.
func (o *simOracle) unacked(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.groups[id] > 0 {
		o.s.count("group_unacked", 1)
	}
}

// claim holds an answer to a teach without any id against the event at its
// place, which is no other's. The caller holds mu.
func (o *simOracle) claim(r *simRequest, nodes []*simNode, e serve.TaughtEvent) (why string) {
	for _, n := range nodes {
		at := n.ancestor(e.Seq)
		if at == nil || e.Index >= uint64(len(at.said)) {
			continue
		}
		if said := at.said[e.Index]; said.event != string(r.data) || said.learned != e.Learned || said.status != e.Status {
			continue
		}
		place := simPlace{at, e.Index}
		if other := o.claims[place]; other != nil && other != r {
			return "another teach was answered with the same event"
		}
		o.claims[place] = r
		return ""
	}
	return "its state has not learned that event there"
}

// simKeys name the events of a message.
func simKeys(id string, data []byte, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		if id != "" {
			keys[i] = fmt.Sprintf("%s#%d", id, i)
		}
	}
	if !bytes.Contains(data, []byte(`"id":`)) {
		return keys
	}
	var batch []struct {
		ID *string `json:"id"`
	}
	if data[0] != '[' {
		data = append(append([]byte{'['}, data...), ']')
	}
	if json.Unmarshal(data, &batch) == nil && len(batch) == n {
		for i := range keys {
			if batch[i].ID != nil {
				keys[i] = "own:" + *batch[i].ID
			}
		}
	}
	return keys
}

// simSentence is what a teach is answered.
func simSentence(a model.Answer) string {
	predicted := "None"
	if a.Known {
		predicted = a.Predicted.String()
	}
	return fmt.Sprintf("learned %s. Initially predicted %s", a.Label, predicted)
}

// judge holds what the fold said of an event against the rule: learned once
// within the last dedup.window ids. The caller holds mu.
func (o *simOracle) judge(node *simNode, key string, x model.Outcome) {
	if key == "" || x.Verdict == model.Rejected {
		return
	}
	place, found := o.last[key]
	within := found && len(o.named)-place <= o.s.spec.DedupWindow
	switch {
	case x.Verdict == model.Learned && within:
		o.s.violate("duplicated", "%s is learned again at sequence %d", key, node.seq)
	case x.Verdict == model.Duplicate && !within:
		o.s.violate("lost", "%s at sequence %d is no repeat of what was learned within the window", key, node.seq)
	}
	if x.Verdict == model.Learned {
		o.last[key] = len(o.named)
		o.named = append(o.named, simNamed{key, node.seq})
		o.records[key] = append(o.records[key], simRecord{node, x.Answer.Learned, simSentence(x.Answer)})
	}
}

// backAt takes the fold back to where the log ends now, from a state of
// before. What is folded again tells nothing new.
func (o *simOracle) backAt(left []bus.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seq := left[len(left)-1].Seq
	o.twin, o.tip = nil, o.tip.ancestor(seq)
	for len(o.named) > 0 && o.named[len(o.named)-1].seq > seq {
		o.named = o.named[:len(o.named)-1]
	}
	clear(o.last)
	for i, n := range o.named {
		o.last[n.key] = i
	}
	for len(o.saves) > 0 && o.saves[len(o.saves)-1].node.seq > seq {
		o.saves = o.saves[:len(o.saves)-1]
	}
	if len(o.saves) > 0 {
		save := o.saves[len(o.saves)-1]
		o.m, left = o.restore(save.state), left[save.node.seq:]
	} else {
		o.m = o.fresh()
	}
	for i := range left {
		o.m.Apply(replica.Message(o.s.spec.Name, &left[i]))
	}
	if o.m.Digest() != o.tip.digest {
		o.s.violate("divergent", "folded again, the state at %d is another", seq)
	}
}

func (o *simOracle) fresh() *model.Model {
	m, err := model.New(o.s.spec)
	if err != nil {
		panic(err)
	}
	return m
}

// same reports whether a replica's state is that of some history, and why not.
func (o *simOracle) same(m *model.Model) (ok bool, why string) {
	o.mu.Lock()
	node := o.known[m.LogChain()]
	o.mu.Unlock()
	switch {
	case node == nil:
		return false, fmt.Sprintf("at sequence %d it has folded what no log ever held", m.Seq())
	case node.seq != m.Seq() || node.inc != m.Incarnation():
		return false, fmt.Sprintf(
			"it is at sequence %d of %s, its log chain is of %d of %s", m.Seq(), m.Incarnation(), node.seq,
			node.inc,
		)
	case node.state != m.StateChain():
		return false, fmt.Sprintf("at sequence %d its state chain is another", m.Seq())
	case node.digest != m.Digest():
		return false, fmt.Sprintf("at sequence %d its digest is another", m.Seq())
	}
	return true, ""
}

// --- the doors

// simRequest is a request and what became of it.
type simRequest struct {
	service *simService
	verb    string
	data    []byte
	header  map[string]string
	keys    []string // of a lesson's events
	batch   bool
	minSeq  uint64
	probe   int
	pin     int  // not 0: requests with the same one go to the same worker, mostly
	sure    bool // nothing of it gets lost

	answered    atomic.Bool
	quarantined bool // anyone who took it was
	answer      chan simAnswer
}

type simAnswer struct {
	code  int
	body  []byte
	wrong bool // anyone who answered has a flipped bit
}

func (r *simRequest) Keep()                 {}
func (r *simRequest) Data() []byte          { return r.data }
func (r *simRequest) HeaderNames() []string { return slices.Collect(maps.Keys(r.header)) }

func (r *simRequest) Header(name string) string { return r.header[name] }
func (r *simRequest) Reply(body []byte)         { r.end(0, bytes.Clone(body)) }
func (r *simRequest) Error(code int, _ string, body []byte) {
	r.end(code, body)
}

func (r *simRequest) end(code int, body []byte) {
	if r.answered.Swap(true) {
		return
	}
	p := r.service.process
	defer r.service.done()
	if p.dead.Load() {
		return
	}
	wrong := p.wrong()
	if code == 0 {
		p.check(r, body, wrong)
	}
	p.s.say("%s answers %s %s %d %s", p.name, r.verb, r.keys, code, body)
	if !r.sure && (p.deaf.Load() || p.s.chance(24)) {
		p.s.count("lost_reply", 1)
		return
	}
	r.answer <- simAnswer{code, body, wrong}
}

// simService is a service that a worker has opened.
type simService struct {
	process *simProcess
	model   bool
	turns   map[string]chan struct{} // one handler at a time
	handle  map[string]func(bus.Request)

	mu       sync.Mutex
	inFlight int
	idle     chan struct{} // closed when nothing is in flight; nil while no one waits
}

func (v *simService) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inFlight++
}

func (v *simService) done() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inFlight--; v.inFlight == 0 && v.idle != nil {
		close(v.idle)
		v.idle = nil
	}
}

// serve has one request handled.
func (v *simService) serve(r *simRequest) {
	turn := v.turns[r.verb]
	turn <- struct{}{}
	r.quarantined = v.process.w.Replica.State() == fleet.Quarantined
	v.handle[r.verb](r)
	<-turn
}

// Close is as bus.Service's.
func (v *simService) Close() {}

// Stop is as bus.Service's.
func (v *simService) Stop(ctx context.Context) error {
	v.process.s.unroute(v)
	for {
		v.mu.Lock()
		if v.inFlight == 0 || v.process.dead.Load() {
			v.mu.Unlock()
			return nil
		}
		if v.idle == nil {
			v.idle = make(chan struct{})
		}
		idle := v.idle
		v.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-idle:
		}
	}
}

func (s *simRun) unroute(v *simService) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.router = slices.DeleteFunc(s.router, func(o *simService) bool { return o == v })
}

// Open is as bus.Doors'.
func (p *simProcess) Open(config bus.ServiceConfig) (bus.Service, error) {
	v := &simService{process: p, turns: map[string]chan struct{}{}, handle: map[string]func(bus.Request){}}
	for _, e := range config.Endpoints {
		v.turns[e.Name], v.handle[e.Name] = make(chan struct{}, 1), e.Handler
		v.model = v.model || e.Queue != ""
	}
	if !v.model || p.dead.Load() {
		return v, nil
	}
	switch {
	case p.w.Replica.State() == fleet.Quarantined:
		p.s.violate("quarantined", "%s is quarantined and opens its doors", p.name)
	case p.w.Replica.Standing().Suspended && !p.w.Replica.Standing().Refolding:
		p.s.violate("quarantined", "%s is on trial and opens its doors", p.name)
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.router = append(p.s.router, v)
	p.opened = append(p.opened, v)
	return v, nil
}

// Dropped is as bus.Doors'.
func (p *simProcess) Dropped() int { return 0 }

// simPatience is how long a client waits for its answer.
const simPatience = 5 * time.Second

var errSimNobody = errors.New("nobody answers")

// ask sends a request into the queue group.
func (s *simRun) ask(r *simRequest) (simAnswer, error) {
	r.answer = make(chan simAnswer, 2)
	s.mu.Lock()
	var open []*simService
	for _, v := range s.router {
		if !v.process.deaf.Load() || s.roll.IntN(4) == 0 {
			open = append(open, v)
		}
	}
	if len(open) == 0 {
		s.mu.Unlock()
		return simAnswer{}, errSimNobody
	}
	to := open[s.roll.IntN(len(open))]
	if r.pin > 0 {
		to = open[r.pin%len(open)]
	}
	twice := s.roll.IntN(24) == 0
	also := open[s.roll.IntN(len(open))]
	s.mu.Unlock()
	if to.process.deaf.Load() {
		s.count("lost_request", 1)
		return simAnswer{}, s.silence()
	}
	s.dispatch(r, to)
	if twice {
		s.count("duplicate_request", 1)
		copied := &simRequest{
			verb: r.verb, data: r.data, header: r.header, keys: r.keys, batch: r.batch, minSeq: r.minSeq,
			probe: r.probe, answer: make(chan simAnswer, 2),
		}
		s.dispatch(copied, also)
	}
	timer := time.NewTimer(simPatience)
	defer timer.Stop()
	select {
	case a := <-r.answer:
		return a, nil
	case <-timer.C:
		return simAnswer{}, context.DeadlineExceeded
	}
}

func (s *simRun) silence() error {
	time.Sleep(simPatience)
	return context.DeadlineExceeded
}

func (s *simRun) dispatch(r *simRequest, to *simService) {
	r.service = to
	to.begin()
	go to.serve(r)
}

// --- the processes

// simSlot is a place in the fleet, and who has it now.
type simSlot struct {
	name string
	p    *simProcess // nil: no one
}

// simProcess is one life of a worker.
type simProcess struct {
	s       *simRun
	name    string
	w       *Worker
	client  *bustest.Client
	logWay  *bustest.Way
	boards  *bustest.Way
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // once done
	stopped atomic.Bool
	dead    atomic.Bool
	opened  []*simService // guarded by the run's mu
	deaf    atomic.Bool   // cut from the clients

	flip      atomic.Pointer[simFlip]
	flips     atomic.Int64
	tainted   atomic.Bool  // has a flipped bit
	cleanAt   atomic.Int64 // when that ended
	advisory  sync.Mutex
	said      map[string]int // advisories by type; guarded by advisory
	attested  []simAttested  // in order; guarded by advisory
	mustName  bool           // a loss that it knew of must be named; the driver's
	namedThen int
	foldsThen int
}

// simFlip is a fault of a process's memory.
type simFlip struct {
	from   uint64 // not before this sequence
	always bool   // again whenever it is mended
	same   bool   // always the same bit at the same place
	bit    int
}

func (s *simRun) start(slot *simSlot) {
	p := &simProcess{s: s, name: slot.name, done: make(chan struct{}), said: map[string]int{}}
	p.logWay, p.boards = bustest.NewWay(s.random.Uint64(), 48), bustest.NewWay(s.random.Uint64(), 96)
	p.client = s.log.By(p.logWay)
	var err error
	p.w, err = New(Config{
		Name: p.name, Stream: bus.StreamName(s.spec.Name), Version: "1.2.3", Spec: s.spec,
		Log: p.client, Services: p, Predicted: simCounter{p}, Verdicts: simVerdicts{p},
		Heartbeats: s.heartbeats.By(
			p.boards,
		), Checkpoints: simCheckpoints{s.checkpoints.By(p.boards), p}, Snapshots: s.blobs.By(p.boards),
		SnapshotEvery: s.every, Advise: p.advised, Logger: s.logger(), OnState: p.onState, Tamper: p.tamper,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	p.cancel = cancel
	s.mu.Lock()
	s.processes = append(s.processes, p)
	s.mu.Unlock()
	slot.p = p
	s.say("start %s", p.name)
	go func() {
		defer close(p.done)
		p.err = p.w.Run(ctx)
		s.say("%s ended: %v", p.name, p.err)
		var gap *bus.GapError
		switch {
		case p.dead.Load():
		case errors.As(p.err, &gap):
			s.count("gap_refused", 1)
		case p.err != nil || !p.stopped.Load() && ctx.Err() == nil:
			s.violate("untyped", "%s ended with %v", p.name, p.err)
		}
	}()
}

// crash ends a process as kill -9 does: at once, and nothing it does any more
// has an effect.
func (s *simRun) crash(slot *simSlot) {
	p := slot.p
	slot.p = nil
	p.dead.Store(true)
	p.logWay.Kill()
	p.boards.Kill()
	s.mu.Lock()
	s.router = slices.DeleteFunc(s.router, func(v *simService) bool { return v.process == p })
	s.mu.Unlock()
	p.cancel()
}

// stop ends a process as an operator does.
func (s *simRun) stop(slot *simSlot) {
	p := slot.p
	slot.p = nil
	p.stopped.Store(true)
	p.cancel()
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		s.violate("stuck", "%s does not stop", p.name)
		<-p.done
	}
	s.mu.Lock()
	opened := slices.Clone(p.opened)
	s.mu.Unlock()
	for _, v := range opened {
		v.mu.Lock()
		left := v.inFlight
		v.mu.Unlock()
		if left > 0 {
			s.violate("unanswered", "%s has stopped, and %d of its requests are not answered", p.name, left)
		}
	}
}

func (p *simProcess) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wrong reports whether the process has a flipped bit, or had until just now.
func (p *simProcess) wrong() bool {
	return p.tainted.Load() || p.flips.Load() > 0 && time.Now().UnixNano()-p.cleanAt.Load() < int64(time.Second)
}

// tamper looks at the replica after each message, and is its bad memory.
func (p *simProcess) tamper(m *model.Model) *model.Model {
	if p.dead.Load() {
		return m
	}
	ok, why := p.s.oracle.same(m)
	switch {
	case ok && p.tainted.Load():
		p.cleanAt.Store(time.Now().UnixNano())
		p.tainted.Store(false)
	case !ok && !p.tainted.Load():
		p.s.violate("divergent", "%s: %s", p.name, why)
	}
	f := p.flip.Load()
	if f == nil || p.tainted.Load() || m.Seq() < f.from {
		return m
	}
	bit := f.bit
	if !f.same {
		bit += p.s.pick(1 << 16)
	}
	for try := range 64 {
		// A flipped incarnation makes the replica a fleet of its own, which
		// no one compares with any other.
		flipped, ok := m.Flipped(bit + try*1009)
		if !ok || flipped.Incarnation() != m.Incarnation() || flipped.Seq() != m.Seq() ||
			f.always && (flipped.Tip() != m.Tip() || f.same && flipped.LogChain() != m.LogChain()) {
			continue
		}
		if same, _ := p.s.oracle.same(flipped); same {
			continue // of the tip, which is in no chain
		}
		p.tainted.Store(true)
		p.flips.Add(1)
		p.s.say("a bit of %s is flipped at sequence %d", p.name, m.Seq())
		if !f.always {
			p.flip.Store(nil)
		}
		return flipped
	}
	return m
}

func (p *simProcess) onState(state fleet.State) {
	if p.dead.Load() || state != fleet.Quarantined {
		return
	}
	p.s.count("quarantined", 1)
	if p.flips.Load() == 0 {
		p.s.violate(
			"quarantined", "%s is quarantined, and nothing was wrong with it: %v", p.name,
			p.w.Server.Status().Advisory,
		)
	}
	p.closedNow()
}

// open reports whether the process is in the group.
func (p *simProcess) open() bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return slices.ContainsFunc(p.s.router, func(v *simService) bool { return v.process == p })
}

// closedNow checks that the process is in no group.
func (p *simProcess) closedNow() {
	if p.open() {
		p.s.violate("quarantined", "%s is quarantined and in the group", p.name)
	}
}

func (p *simProcess) advised(_ string, data []byte) {
	if p.dead.Load() {
		return
	}
	var a struct{ Type, Text string }
	if err := json.Unmarshal(data, &a); err != nil {
		p.s.violate("untyped", "the advisory %s: %v", data, err)
	}
	p.advisory.Lock()
	p.said[a.Type]++
	p.advisory.Unlock()
	switch a.Type {
	case "healed":
		p.s.count("healed", 1)
	case "snapshot":
		p.s.count("set_aside", 1)
	}
}

// losses is how often the process named a loss.
func (p *simProcess) losses() int {
	p.advisory.Lock()
	defer p.advisory.Unlock()
	return p.said["rolled-back"] + p.said["snapshot"] + p.said["jumped"]
}

// check holds a good answer against what it says it is of.
func (p *simProcess) check(r *simRequest, body []byte, wrong bool) {
	s := p.s
	if r.quarantined {
		s.violate("quarantined", "%s is quarantined and answers %s: %s", p.name, r.verb, body)
	}
	if r.verb == "status" {
		return
	}
	var a struct {
		serve.Taught
		Species *string `json:"species"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		s.violate("untyped", "%s answers %s", p.name, body)
		return
	}
	if wrong {
		return
	}
	o := s.oracle
	o.mu.Lock()
	defer o.mu.Unlock()
	nodes := o.receipts[a.Receipt]
	if len(nodes) == 0 {
		s.violate("divergent", "%s answers from a state that never was: %s", p.name, body)
		return
	}
	if nodes[0].seq < r.minSeq {
		s.violate("stale", "%s is asked for sequence %d and answers from %d: %s", p.name, r.minSeq, nodes[0].seq, body)
	}
	if r.verb != "teach" {
		species := ""
		if a.Species != nil {
			species = *a.Species
		}
		if !slices.ContainsFunc(nodes, func(n *simNode) bool {
			return a.Seq == n.seq && a.Learned == n.learned && species == n.labels[r.probe]
		}) {
			s.violate(
				"divergent", "%s answers %s, and it is sequence %d, %d learned, %q", p.name, body, nodes[0].seq,
				nodes[0].learned, nodes[0].labels[r.probe],
			)
		}
		return
	}
	results := a.Results
	if !r.batch {
		results = []serve.TaughtEvent{{Seq: a.Seq, Index: a.Index, Learned: a.Learned, Status: a.Status}}
	}
	if len(results) != len(r.keys) {
		s.violate("lost", "%s answers %d events with %s", p.name, len(r.keys), body)
		return
	}
	for i, e := range results {
		if r.keys[i] == "" {
			if why := o.claim(r, nodes, e); why != "" {
				s.violate("lost", "%s acknowledges %s with %s: %s", p.name, r.data, body, why)
			}
			continue
		}
		right := slices.ContainsFunc(o.records[r.keys[i]], func(x simRecord) bool {
			return x.node.seq == e.Seq && x.learned == e.Learned && x.status == e.Status &&
				slices.ContainsFunc(nodes, func(n *simNode) bool { return n.ancestor(e.Seq) == x.node })
		})
		if !right {
			s.violate(
				"lost", "%s acknowledges %s, which its state at %d has not learned so: %s", p.name, r.keys[i],
				nodes[0].seq, body,
			)
		}
	}
}

// simCheckpoints remembers what a process attested, and was told that it is
// written.
type simCheckpoints struct {
	*bustest.BoardUser
	p *simProcess
}

func (b simCheckpoints) Put(ctx context.Context, key string, value []byte) error {
	err := b.BoardUser.Put(ctx, key, value)
	if strings.HasPrefix(key, "attest.") {
		b.p.advisory.Lock()
		defer b.p.advisory.Unlock()
		b.p.attested = append(b.p.attested, simAttested{key, b.p.w.Replica.Standing().Epoch, err == nil})
	}
	return err
}

type simAttested struct {
	key   string
	epoch int
	sure  bool // it knows that it is written
}

type simCounter struct{ p *simProcess }

func (c simCounter) Add(_ context.Context, id string, n int64) (int64, error) {
	if c.p.dead.Load() {
		return 0, bustest.ErrDead
	}
	c.p.s.mu.Lock()
	defer c.p.s.mu.Unlock()
	if _, repeat := c.p.s.counted[id]; !repeat {
		c.p.s.counted[id] = n
		c.p.s.total += n
	}
	return c.p.s.total, nil
}

func (c simCounter) Value(context.Context) (int64, error) {
	c.p.s.mu.Lock()
	defer c.p.s.mu.Unlock()
	return c.p.s.total, nil
}

type simVerdicts struct{ p *simProcess }

func (simVerdicts) Put(context.Context, string, []byte) (bool, error) { return true, nil }

// --- the clients

// simClient teaches, predicts, and appends by itself.
type simClient struct {
	s      *simRun
	random *rand.Rand
	name   string
	n      int
	seen   uint64 // a sequence that it knows of
	old    []simLesson
	log    *bustest.Client
	pin    int // see simRequest
}

type simLesson struct {
	id    string
	data  string
	keys  []string
	batch bool
}

func (c *simClient) run() {
	for !c.s.stopping.Load() && c.s.ctx.Err() == nil {
		time.Sleep(time.Duration(20+c.random.IntN(600)) * time.Millisecond)
		switch x := c.random.IntN(100); {
		case x < 30:
			c.teach(c.lesson())
		case x < 40:
			c.burst()
		case x < 50 && len(c.old) > 0:
			c.teach(c.old[c.random.IntN(len(c.old))])
		case x < 62:
			c.append(c.lesson())
		case x < 68 && len(c.old) > 0:
			c.append(c.old[c.random.IntN(len(c.old))])
		case x < 74:
			c.garbage()
		default:
			c.predict()
		}
	}
}

func (c *simClient) lesson() simLesson {
	c.n++
	l := simLesson{id: fmt.Sprintf("%s-%d", c.name, c.n)}
	number := c.random.IntN(1000)
	own := func(i int) string {
		if c.random.IntN(4) == 0 {
			return fmt.Sprintf("e%s-%d", l.id, i)
		}
		return ""
	}
	if c.random.IntN(4) > 0 {
		l.data = c.s.event(number, own(0))
		l.keys = simKeys(l.id, []byte(l.data), 1)
	} else {
		var events []string
		for i := range 1 + c.random.IntN(3) {
			events = append(events, c.s.event(number+i*7, own(i)))
		}
		l.data, l.batch = "["+strings.Join(events, ",")+"]", true
		l.keys = simKeys(l.id, []byte(l.data), len(events))
	}
	c.old = append(c.old, l)
	return l
}

// burst has many teach at the same worker at once, most of them without a name.
func (c *simClient) burst() {
	var all sync.WaitGroup
	pin := 1 + c.random.IntN(64)
	for i := range 2 + c.random.IntN(12) {
		l := c.lesson()
		if !l.batch && c.random.IntN(8) > 0 {
			c.old = c.old[:len(c.old)-1]
			l.id, l.keys = "", simKeys("", []byte(l.data), 1)
		}
		one := &simClient{s: c.s, random: rand.New(rand.NewPCG(c.random.Uint64(), uint64(i))), seen: c.seen, pin: pin}
		all.Go(func() { one.teach(l) })
	}
	all.Wait()
}

// minSeq sometimes asks for what the client knows of.
func (c *simClient) minSeq(header map[string]string) uint64 {
	if c.seen == 0 || c.random.IntN(2) == 0 {
		return 0
	}
	header["Lockstep-Min-Seq"] = fmt.Sprint(c.seen)
	return c.seen
}

// teach asks until it is answered.
func (c *simClient) teach(l simLesson) {
	for attempt := 0; c.s.ctx.Err() == nil; attempt++ {
		header := map[string]string{}
		if l.id != "" {
			header["Nats-Msg-Id"] = l.id
		}
		if c.random.IntN(3) == 0 {
			header["Lockstep-Timeout"] = "500ms"
		}
		var minSeq uint64
		if attempt < 3 { // what it knows of may have been lost
			minSeq = c.minSeq(header)
		}
		a, err := c.s.ask(
			&simRequest{
				verb: "teach", data: []byte(l.data), header: header, keys: l.keys, batch: l.batch,
				minSeq: minSeq, pin: c.pin,
			},
		)
		switch {
		case err != nil:
		case a.code == 0:
			var t serve.Taught
			if err := json.Unmarshal(a.body, &t); err != nil {
				c.s.violate("untyped", "teach is answered %s", a.body)
			}
			c.seen = t.Seq
			if !a.wrong {
				c.s.mu.Lock()
				for _, key := range l.keys {
					if key != "" { // the answer was held against its place
						c.s.acked[key] = t.Seq
					}
				}
				c.s.mu.Unlock()
			}
			return
		case a.code == 422 && c.s.spec.DedupWindow < 2048:
			return // the window has passed over it
		case a.code >= 500, a.wrong:
		case a.code == 422:
			// After a roll-back the server may know an id that is gone.
		default:
			c.s.violate("lost", "teach of %s is answered %d %s", l.id, a.code, a.body)
			return
		}
		if attempt == 2 {
			c.seen = 0
		}
		time.Sleep(time.Duration(50+c.random.IntN(500)) * time.Millisecond)
	}
}

// append publishes to the log until it is acknowledged.
func (c *simClient) append(l simLesson) {
	for c.s.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(c.s.ctx, 5*time.Second)
		ack, err := c.log.Append(ctx, c.s.spec.Name+"."+model.SubjectLearn, l.id, []byte(l.data))
		cancel()
		if err == nil {
			c.seen = ack.Seq
			c.s.mu.Lock()
			for _, key := range l.keys {
				c.s.acked[key] = ack.Seq
			}
			c.s.mu.Unlock()
			return
		}
	}
}

// garbage publishes what every replica rejects.
func (c *simClient) garbage() {
	data := []string{`{`, `[1,` + c.s.event(3, "") + `]`, `{"attributes":{"island":7},"species":"x"}`, ``}[c.random.IntN(4)]
	subject := []string{model.SubjectLearn, "ctl.later"}[c.random.IntN(2)]
	c.n++
	ctx, cancel := context.WithTimeout(c.s.ctx, 3*time.Second)
	defer cancel()
	if _, err := c.log.Append(ctx, c.s.spec.Name+"."+subject, fmt.Sprintf("bad-%s-%d", c.name, c.n), []byte(data)); err == nil {
		c.s.count("bad_event", 1)
	}
}

func (c *simClient) predict() {
	header := map[string]string{}
	r := &simRequest{verb: "predict", header: header, probe: c.random.IntN(simProbes), minSeq: c.minSeq(header)}
	if c.random.IntN(5) == 0 {
		r.verb = "explain"
	}
	r.data = []byte(c.s.row(r.probe))
	a, err := c.s.ask(r)
	switch {
	case err != nil:
	case a.code == 504:
		c.seen = 0 // it may have been lost
	case a.code != 0 && a.code < 500 && !a.wrong:
		c.s.violate("lost", "%s is answered %d %s", r.verb, a.code, a.body)
	}
}

// --- the driver

// run is the fleet's life: faults, then healing, and what must be true then.
func (s *simRun) run() {
	ctx, cancel := context.WithTimeout(context.Background(), simDeadline)
	defer cancel()
	s.ctx = ctx
	replicas := 2 + s.random.IntN(4)
	for i := range replicas {
		slot := &simSlot{name: fmt.Sprintf("r%d", i)}
		s.slots = append(s.slots, slot)
		s.start(slot)
	}
	for i := range 1 + s.random.IntN(3) {
		c := &simClient{
			s: s, name: fmt.Sprintf("c%d", i), random: rand.New(rand.NewPCG(s.seed, 100+uint64(i))),
			log: s.log.By(s.public),
		}
		s.clients.Go(c.run)
	}
	actions := s.actions()
	for range 8 + s.random.IntN(16) {
		time.Sleep(time.Duration(50+s.random.IntN(1500)) * time.Millisecond)
		if s.random.IntN(3) == 0 {
			s.checkpoint()
		}
		s.look()
		if s.failed() {
			break
		}
		actions[s.random.IntN(len(actions))]()
	}
	if !s.failed() {
		s.finish()
	}
	s.took = time.Since(s.began)
	s.stopping.Store(true)
	if s.failed() {
		cancel() // no one need wait
	}
	s.clients.Wait()
	for _, slot := range s.slots {
		if slot.p != nil {
			s.stop(slot)
		}
	}
	s.mu.Lock()
	all := s.processes
	s.mu.Unlock()
	for _, p := range all {
		p.cancel()
		<-p.done
		for _, way := range []*bustest.Way{p.logWay, p.boards} {
			s.countWay(way)
		}
	}
	s.countWay(s.public)
	s.count("tail_restart", s.log.Faults().Restarts)
	s.count("repeat_stored", s.log.Faults().Repeats)
}

func (s *simRun) countWay(way *bustest.Way) {
	f := way.Faults()
	s.count("lost_request", f.LostRequests)
	s.count("lost_answer", f.LostAnswers)
	s.count("delay", f.Delays)
}

// actions are the faults of this run: not all of them, and some more often
// than others.
func (s *simRun) actions() []func() {
	all := []struct {
		weight int
		do     func()
	}{
		{
			4, s.doCrash,
		}, {3, s.doRestart}, {3, s.doRevive}, {3, s.doCutLog}, {3, s.doCutBoards}, {3, s.doCutClients}, {3, s.doSlow}, {1, s.doStale},
		{3, s.doMend}, {3, s.doCompact}, {1, s.doPurgeAbove}, {1, s.doRecreate}, {2, s.doRollBack},
		{2, s.doShrink}, {2, s.doSpoil}, {2, s.doForge}, {1, s.doTear}, {2, s.doFlip}, {6, s.checkpoint},
	}
	var out []func()
	for _, a := range all {
		if s.random.IntN(2) == 0 {
			for range a.weight {
				out = append(out, a.do)
			}
		}
	}
	if len(out) == 0 {
		out = append(out, s.checkpoint)
	}
	return out
}

// append stores a control event, or an event of the operator's.
func (s *simRun) append(subject, id string, data []byte) uint64 {
	ack, err := s.operator.Append(s.ctx, s.spec.Name+"."+subject, id, data)
	if err != nil && s.ctx.Err() == nil {
		s.violate("untyped", "append: %v", err)
	}
	return ack.Seq
}

func (s *simRun) checkpoint() {
	data := []byte(nil)
	if s.random.IntN(2) == 0 {
		data = []byte(`{"snapshot":true}`)
	}
	seq := s.append(model.SubjectCheckpoint, "", data)
	s.say("checkpoint %d %s", seq, data)
}

// end is the log's.
func (s *simRun) end() (first, last uint64) {
	first, last, _ = s.log.End(context.Background())
	return first, last
}

// alive are the slots whose process runs.
func (s *simRun) alive() (out []*simSlot) {
	for _, slot := range s.slots {
		if slot.p != nil && slot.p.running() {
			out = append(out, slot)
		}
	}
	return out
}

func (s *simRun) any() *simSlot {
	alive := s.alive()
	if len(alive) == 0 {
		return nil
	}
	return alive[s.random.IntN(len(alive))]
}

// look checks what must hold at any time.
func (s *simRun) look() {
	for _, slot := range s.alive() {
		p := slot.p
		m := p.w.Replica.Lock()
		ok, why := true, ""
		if p.open() && !p.tainted.Load() { // what was restored is tried before it serves
			ok, why = s.oracle.same(m)
		}
		p.w.Replica.Unlock()
		if !ok {
			s.violate("divergent", "%s: %s", p.name, why)
		}
		if p.w.Replica.State() == fleet.Quarantined {
			p.closedNow()
		}
	}
}

func (s *simRun) doCrash() {
	if slot := s.any(); slot != nil {
		s.say("crash %s", slot.name)
		s.crash(slot)
		s.count("crash", 1)
		if s.random.IntN(2) == 0 {
			s.start(slot)
		}
	}
}

func (s *simRun) doRestart() {
	if slot := s.any(); slot != nil {
		s.say("restart %s", slot.name)
		s.stop(slot)
		s.count("restart", 1)
		s.start(slot)
	}
}

// doRevive starts anyone who does not run.
func (s *simRun) doRevive() {
	for _, slot := range s.slots {
		if slot.p == nil || !slot.p.running() {
			s.start(slot)
		}
	}
}

func (s *simRun) doCutLog() {
	if slot := s.any(); slot != nil {
		s.say("cut %s from the log", slot.name)
		slot.p.logWay.Cut(true)
		s.count("cut_log", 1)
	}
}

func (s *simRun) doCutBoards() {
	if slot := s.any(); slot != nil {
		s.say("cut %s from the boards", slot.name)
		slot.p.boards.Cut(true)
		s.count("cut_boards", 1)
	}
}

func (s *simRun) doCutClients() {
	if slot := s.any(); slot != nil {
		s.say("cut %s from the clients", slot.name)
		slot.p.deaf.Store(true)
		s.count("cut_clients", 1)
	}
}

func (s *simRun) doSlow() {
	if slot := s.any(); slot != nil {
		s.say("%s is slow", slot.name)
		most := 20 + s.random.IntN(400)
		random := rand.New(rand.NewPCG(s.random.Uint64(), 5))
		var mu sync.Mutex
		slot.p.client.Pace(func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(random.IntN(most)) * time.Millisecond
		})
		s.count("slow", 1)
	}
}

// doStale has a process ask a server that is behind, for its log's end.
func (s *simRun) doStale() {
	if slot := s.any(); slot != nil {
		s.say("%s asks a stale server", slot.name)
		slot.p.client.Stale(uint64(1 + s.random.IntN(6)))
		s.count("stale_end", 1)
	}
}

// doShrink has the log take no more than the largest message that a client
// sends, as if its settings had changed.
func (s *simRun) doShrink() {
	s.say("the log takes small messages only")
	s.log.Largest(3*len(s.event(999, "ec0-1000-2")) + 32)
}

// doMend ends what cuts and slows.
func (s *simRun) doMend() {
	s.log.Largest(bus.MaxMessage)
	for _, slot := range s.alive() {
		s.mend(slot)
	}
}

func (s *simRun) mend(slot *simSlot) {
	p := slot.p
	p.logWay.Cut(false)
	p.boards.Cut(false)
	p.deaf.Store(false)
	p.client.Pace(nil)
	p.client.Stale(0)
}

// snapshots are those that the board points to.
func (s *simRun) snapshots() []fleet.Snapshot {
	all, err := fleet.Snapshots(context.Background(), s.checkpoints)
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// sound are the snapshots that are of the log's present history, and whole.
func (s *simRun) sound() (out []fleet.Snapshot) {
	asides, _ := fleet.RejectedSnapshots(context.Background(), s.checkpoints)
	first, _ := s.end()
	for _, x := range s.snapshots() {
		m, err := fleet.LoadSnapshot(context.Background(), s.blobs, s.spec, x)
		if err != nil || x.Seq < first ||
			slices.ContainsFunc(asides, func(a fleet.RejectedSnapshot) bool { return a.Object == x.Object }) {
			continue
		}
		s.oracle.mu.Lock()
		node := s.oracle.known[m.LogChain()]
		ours := node != nil && s.oracle.tip.ancestor(node.seq) == node && node.digest == m.Digest()
		s.oracle.mu.Unlock()
		if ours {
			out = append(out, x)
		}
	}
	return out
}

// doCompact cuts the log below the second newest snapshot, as lockstep
// compact does: both are verified first, and the older one is pinned.
func (s *simRun) doCompact() {
	sound := s.sound()
	if len(sound) < 2 {
		return
	}
	second := sound[len(sound)-2]
	if err := fleet.Pin(context.Background(), s.checkpoints, second, nil); err != nil {
		s.t.Fatal(err)
	}
	s.say("compact below %d", second.Seq)
	s.log.Purge(second.Seq)
	s.purges++
	s.count("compact", 1)
}

// doPurgeAbove cuts what no snapshot covers.
func (s *simRun) doPurgeAbove() {
	first, last := s.end()
	if last-first < 4 {
		return
	}
	below := last - uint64(s.random.IntN(3))
	s.say("purge below %d", below)
	s.log.Purge(below)
	s.purges++
	s.count("purge_above", 1)
}

// mustName has anyone who applied more than the log will hold name that loss.
func (s *simRun) mustName(to uint64) {
	for _, slot := range s.alive() {
		if p := slot.p; p.knows(to) && !p.w.Replica.Standing().Suspended {
			p.mustName, p.namedThen, p.foldsThen = true, p.losses(), p.w.Replica.Standing().Folds
		}
	}
}

// knows reports whether the replica serves what the log holds now, and that is
// more than a sequence.
func (p *simProcess) knows(seq uint64) bool {
	if !p.open() {
		return false // it leaves, or replays from the start
	}
	r, o := p.w.Replica, p.s.oracle
	m := r.Lock()
	defer r.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	node := o.known[m.LogChain()]
	return node != nil && node.seq > seq && o.tip.ancestor(node.seq) == node
}

// atEnd reports whether the replica has folded all that the log holds now.
func (p *simProcess) atEnd() bool {
	r, o := p.w.Replica, p.s.oracle
	m := r.Lock()
	defer r.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.known[m.LogChain()] == o.tip
}

func (s *simRun) doRecreate() {
	s.say("another log is made")
	s.mustName(0)
	s.log.Recreate(s.genesis())
	s.count("recreate", 1)
	s.goOn()
}

// goOn publishes at once, so that the log may look as long as it was.
func (s *simRun) goOn() {
	if s.random.IntN(2) == 0 {
		return
	}
	for i := range 1 + s.random.IntN(12) {
		s.append(
			model.SubjectLearn, fmt.Sprintf("op-%d-%d", time.Since(s.began), i),
			[]byte(s.event(s.random.IntN(1000), "")),
		)
	}
}

func (s *simRun) doRollBack() {
	first, last := s.end()
	if last-first < 2 {
		return
	}
	back := 1 + s.random.IntN(int(min(last-first, 12)))
	if s.random.IntN(4) == 0 {
		back = 1 + s.random.IntN(int(last-first))
	}
	to := last - uint64(back)
	s.say("the log is rolled back from %d to %d", last, to)
	s.mustName(to)
	s.log.RollBack(to)
	s.count("roll_back", 1)
	s.goOn()
}

// doSpoil spoils a snapshot that is stored.
func (s *simRun) doSpoil() {
	all := s.snapshots()
	if len(all) == 0 {
		return
	}
	x := all[max(0, len(all)-1-s.random.IntN(2))]
	kind := []string{"corrupt", "truncated", "missing", "wrong"}[s.random.IntN(4)]
	s.say("the snapshot %s is %s", x.Object, kind)
	switch kind {
	case "wrong": // whole, and of the right place, and another state
		bit := s.random.IntN(1 << 16)
		if !s.blobs.Spoil(x.Object, func(data []byte) []byte {
			if m, err := model.Restore(s.spec, data); err == nil {
				for try := range 64 {
					if flipped, ok := m.Flipped(bit + try*1009); ok && flipped.Tip() == m.Tip() && flipped.Seq() == m.Seq() {
						return flipped.AppendState(nil)
					}
				}
			}
			return data[:len(data)/2]
		}) {
			return
		}
	case "missing":
		_ = s.blobs.Remove(context.Background(), x.Object)
	default:
		if !s.blobs.Spoil(x.Object, s.spoiler(kind)) {
			return
		}
	}
	s.count("snapshot_"+kind, 1)
}

func (s *simRun) spoiler(kind string) func([]byte) []byte {
	n := s.random.IntN(1 << 20)
	return func(data []byte) []byte {
		if kind == "truncated" {
			return data[:n%len(data)]
		}
		data[n/8%len(data)] ^= 1 << (n % 8)
		return data
	}
}

// doTear spoils the next snapshot while it is written.
func (s *simRun) doTear() {
	s.blobs.SpoilNext(s.spoiler([]string{"corrupt", "truncated"}[s.random.IntN(2)]))
	s.append(model.SubjectCheckpoint, "", []byte(`{"snapshot":true}`))
	s.count("snapshot_torn", 1)
}

// doForge puts up a snapshot of another log, or of this one's future.
func (s *simRun) doForge() {
	m, err := model.New(s.spec)
	if err != nil {
		s.t.Fatal(err)
	}
	_, last := s.end()
	kind := []string{"foreign", "lying", "future"}[s.random.IntN(3)]
	to := last
	own := ""
	s.oracle.mu.Lock()
	own = s.oracle.m.Incarnation()
	if kind == "future" {
		to += uint64(1 + s.random.IntN(20))
		m = s.oracle.restore(s.oracle.m.AppendState(nil))
	} else {
		m.Apply(model.Message{Seq: 1, Subject: model.SubjectGenesis, Data: s.genesis()})
		to -= min(to-1, uint64(s.random.IntN(5)))
	}
	s.oracle.mu.Unlock()
	for m.Seq() < to {
		m.Apply(model.Message{Seq: m.Seq() + 1, Subject: model.SubjectLearn, Data: []byte(s.event(int(m.Seq()), ""))})
	}
	a := fleet.Attest(m)
	a.Replica = "r0"
	if kind == "lying" {
		a.Incarnation = own
	}
	x := fleet.Snapshot{
		Attestation: a, Object: fmt.Sprintf("%020d-forged-%s", a.Seq, bus.NewID()),
		Attested: []string{"r0", "r1"},
	}
	value, err := json.Marshal(x)
	if err != nil {
		s.t.Fatal(err)
	}
	if created, _ := s.checkpoints.Create(context.Background(), fleet.SnapshotKey(x.Seq), value); created {
		_ = s.blobs.Put(context.Background(), x.Object, m.AppendState(nil))
		s.say("a %s snapshot at %d", kind, x.Seq)
		s.count("snapshot_"+kind, 1)
	}
}

// until waits for something, looking at all that must hold meanwhile.
func (s *simRun) until(within time.Duration, done func() bool) bool {
	for began := time.Now(); ; time.Sleep(250 * time.Millisecond) {
		s.look()
		if done() {
			return true
		}
		if time.Since(began) > within || s.ctx.Err() != nil || s.failed() {
			return false
		}
	}
}

// serving reports whether a process is as well as can be.
func (s *simRun) serving(slot *simSlot) bool {
	p := slot.p
	_, last := s.end()
	return p != nil && p.running() && p.w.Replica.State() == fleet.Ready && !p.tainted.Load() &&
		!p.w.Replica.Standing().Suspended &&
		p.w.Replica.Applied()+8 > last
}

func (s *simRun) allServe() bool {
	return !slices.ContainsFunc(s.slots, func(slot *simSlot) bool { return !s.serving(slot) })
}

// heal fixes all, and waits until every replica serves.
func (s *simRun) heal() bool {
	s.doMend()
	s.doRevive()
	began, next := time.Now(), time.Now().Add(10*time.Second)
	return s.until(simSettle, func() bool {
		if time.Now().After(next) { // life goes on
			s.append(model.SubjectLearn, "", []byte(s.event(s.random.IntN(1000), "")))
			next = time.Now().Add(5 * time.Second)
		}
		for _, slot := range s.slots {
			p := slot.p
			switch {
			case p.running() && p.w.Replica.State() == fleet.Quarantined && p.flips.Load() > 0:
				s.stop(slot)
				s.start(slot)
			case !p.running(): // it met a hole; perhaps a snapshot covers it meanwhile
				if s.append(model.SubjectCheckpoint, "", []byte(`{"snapshot":true}`)); time.Since(began) > 20*time.Second ||
					len(s.alive()) == 0 {
					s.say("the log is restored")
					s.log.Unpurge()
					s.count("unpurge", 1)
				}
				time.Sleep(3 * time.Second)
				s.start(slot)
			}
		}
		return s.allServe()
	})
}

func (s *simRun) states() string {
	var out []string
	_, last := s.end()
	for _, slot := range s.slots {
		switch p := slot.p; {
		case p == nil:
			out = append(out, slot.name+" is down")
		case !p.running():
			out = append(out, fmt.Sprintf("%s ended with %v", slot.name, p.err))
		default:
			out = append(
				out,
				fmt.Sprintf(
					"%s is %s at %d, suspended %t, refolding %t, tainted %t: %.200s", slot.name, p.w.Replica.State(),
					p.w.Replica.Applied(), p.w.Replica.Standing().Suspended, p.w.Replica.Standing().Refolding,
					p.tainted.Load(), p.w.Server.Status().Advisory,
				),
			)
		}
	}
	return fmt.Sprintf("the log ends at %d; %s", last, strings.Join(out, "; "))
}

// cover sees to it that anyone who replays from the start finds all that it needs.
func (s *simRun) cover() {
	base, _ := fleet.Base(context.Background(), s.checkpoints)
	first, _ := s.end()
	hole := slices.ContainsFunc(s.alive(), func(slot *simSlot) bool { return slot.p.w.Replica.Applied()+1 < first })
	if first > 1 &&
		(hole || base == nil || !slices.ContainsFunc(s.sound(), func(x fleet.Snapshot) bool { return x.Object == base.Object })) {
		s.say("the log is restored")
		s.log.Unpurge()
		s.count("unpurge", 1)
	}
}

// doFlip flips a bit of one replica's state while all others are well, and
// sees it found: healed, or quarantined if that happens again and again.
func (s *simRun) doFlip() {
	if !s.heal() {
		s.violate("stuck", "not all are well after healing: %s", s.states())
		return
	}
	time.Sleep(3 * time.Second)
	slot := s.slots[s.random.IntN(len(s.slots))]
	p := slot.p
	s.cover()
	_, last := s.end()
	f := &simFlip{from: last + uint64(s.random.IntN(4)), bit: s.random.IntN(1 << 16)}
	kind := []string{"once", "once", "always", "always_same", "again"}[s.random.IntN(5)]
	f.always, f.same = strings.HasPrefix(kind, "always"), kind == "always_same"
	s.say("%s flips a bit %s, from %d on", slot.name, kind, f.from)
	p.flip.Store(f)
	next := time.Now()
	rollAt := time.Now().Add(time.Hour)
	if kind != "again" && s.random.IntN(4) == 0 {
		rollAt = time.Now().Add(time.Duration(s.random.IntN(8000)) * time.Millisecond)
	}
	found := s.until(4*time.Minute, func() bool {
		if time.Now().After(rollAt) { // while it is on trial, perhaps
			rollAt = rollAt.Add(time.Hour)
			if first, _ := s.end(); first == 1 {
				s.doRollBack()
			}
		}
		if time.Now().After(next) {
			s.append(model.SubjectLearn, "", []byte(s.event(s.random.IntN(1000), "")))
			s.append(model.SubjectCheckpoint, "", nil)
			next = time.Now().Add(4 * time.Second)
		}
		// One that cannot go on, for the log has a hole, answers nothing either.
		mended := p.w.Replica.State() == fleet.Quarantined || !p.running() || !p.running() ||
			!f.always && kind != "again" && p.flips.Load() > 0 && s.serving(slot)
		if kind == "again" && p.flip.Load() == nil && s.serving(slot) { // healed, and not for the last time
			_, last := s.end()
			p.flip.Store(&simFlip{from: last, bit: s.random.IntN(1 << 16)})
		}
		for _, other := range s.slots {
			if !other.p.running() && other != slot { // it could not read the snapshots
				s.start(other)
			}
			mended = mended && (other == slot || s.serving(other))
		}
		return mended
	})
	if !found {
		s.violate("stuck", "a bit of %s flipped %s is not found: %s", slot.name, kind, s.states())
		return
	}
	s.count("flip_"+kind, 1)
	p.flip.Store(nil)
	if !p.running() { // it could not read the snapshots, and the log does not begin at 1
		s.start(slot)
	} else if p.w.Replica.State() == fleet.Quarantined {
		s.stop(slot)
		s.start(slot)
	}
}

// finish heals all, and holds everything against the fold.
func (s *simRun) finish() {
	s.say("--- healing")
	s.stopping.Store(true)
	if !s.heal() {
		s.violate("stuck", "not all are well after healing: %s", s.states())
		return
	}
	s.cover()
	answered := make(chan struct{})
	go func() { s.clients.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(simSettle):
		s.violate("stuck", "not all clients are answered: %s", s.states())
		return
	}
	s.atOnce()
	// Anyone who starts on what is left comes to the same.
	if s.random.IntN(2) == 0 {
		slot := &simSlot{name: "cold"}
		s.slots = append(s.slots, slot)
		s.start(slot)
		s.count("cold_start", 1)
	}
	s.append(model.SubjectLearn, "", []byte(s.event(1, "")))
	s.append(model.SubjectCheckpoint, "", []byte(`{"snapshot":true}`))
	if !s.heal() {
		s.violate("stuck", "not all are well in the end: %s", s.states())
		return
	}
	if !s.until(20*time.Second, func() bool {
		return !slices.ContainsFunc(s.slots, func(slot *simSlot) bool { return !slot.p.atEnd() })
	}) {
		s.violate("stuck", "not all come to the log's end: %s", s.states())
		return
	}
	s.final()
}

// tookBack checks that anyone who noticed that the log is another has taken back
// what it attested of the one that is no more.
func (s *simRun) tookBack() {
	for _, slot := range s.slots {
		p := slot.p
		p.advisory.Lock()
		attested := slices.Clone(p.attested)
		p.advisory.Unlock()
		epoch := p.w.Replica.Standing().Epoch
		for i, a := range attested {
			newer := attested[i+1:]
			again := slices.ContainsFunc(newer, func(b simAttested) bool { return b.key == a.key })
			if a.epoch == epoch || again || !a.sure || len(newer) >= 16 || p.flips.Load() > 0 {
				continue
			}
			entries, err := s.checkpoints.List(context.Background(), strings.TrimSuffix(a.key, "."+p.name))
			if err != nil {
				s.t.Fatal(err)
			}
			if slices.ContainsFunc(entries, func(e bus.Entry) bool { return e.Key == a.key }) {
				s.violate("forgotten", "%s still has %s of a log that is no more", p.name, a.key)
			}
		}
	}
}

// atOnce asks each worker, now that nothing is wrong, and wants a good answer
// the first time.
func (s *simRun) atOnce() {
	for _, slot := range s.slots {
		slot.p.logWay.Lossy(0)
		slot.p.boards.Lossy(0)
	}
	time.Sleep(3 * time.Second) // for what was under way
	for i, slot := range s.slots {
		s.mu.Lock()
		place := slices.IndexFunc(s.router, func(v *simService) bool { return v.process == slot.p })
		var door *simService
		if place >= 0 {
			door = s.router[place]
		}
		s.mu.Unlock()
		if door == nil {
			continue // just now; heal sees whether it comes back
		}
		id := fmt.Sprintf("once-%d", i)
		data := s.event(i, "")
		teach := &simRequest{
			verb: "teach", data: []byte(data), header: map[string]string{"Nats-Msg-Id": id},
			keys: simKeys(id, []byte(data), 1), sure: true, answer: make(chan simAnswer, 1),
		}
		s.dispatch(teach, door)
		a := <-teach.answer
		if a.code != 0 && !a.wrong && slices.Contains(s.serve(), slot.name) {
			s.violate("unanswered", "nothing is wrong, and %s answers a teach with %d %s", slot.name, a.code, a.body)
		}
	}
}

// serve are the names of those that serve.
func (s *simRun) serve() (out []string) {
	for _, slot := range s.slots {
		if s.serving(slot) && slot.p.open() {
			out = append(out, slot.name)
		}
	}
	return out
}

// final compares the replicas with the test's own fold, and the fold with what
// was acknowledged.
func (s *simRun) final() {
	s.oracle.mu.Lock()
	digest, tip := s.oracle.m.Digest(), s.oracle.tip
	s.oracle.mu.Unlock()
	for _, slot := range s.slots {
		p := slot.p
		if got := p.w.Server.Status(); got.Seq != tip.seq || got.Digest != fmt.Sprintf("%x", digest) {
			s.violate(
				"divergent", "in the end %s is at %d %.12s, and the fold is at %d %.12x", slot.name, got.Seq,
				got.Digest, tip.seq, digest,
			)
		}
		if p.w.Server.Status().Restored > 0 {
			s.count("restored", 1)
		}
		switch {
		case !p.mustName,
			p.w.Replica.Standing().Folds != p.foldsThen: // on trial it replays from the start anyway, and sees no difference
		case p.losses() > p.namedThen:
			s.count("rolled_back_named", 1)
		default:
			s.violate("lost", "%s does not name what was lost: %s", slot.name, p.w.Server.Status().Advisory)
		}
	}
	s.tookBack()
	s.oracle.mu.Lock()
	defer s.oracle.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.acked)) {
		if len(s.oracle.records[key]) == 0 {
			s.mu.Lock()
			s.violations = append(s.violations, simViolation{"lost", key + " was acknowledged and never learned"})
			s.mu.Unlock()
		}
	}
}
