//go:build e2e && linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

const (
	tortureTeachers   = 6
	torturePublishers = 3                     // that append to the log without a worker
	torturePause      = 20 * time.Millisecond // of each, between two events
	tortureSample     = 20                    // of so many predictions one is audited
	settle            = time.Minute           // for each thing that must come right in the end
)

// The faults. At most one server is impaired at a time.
var tortures = []string{
	"kill server", "kill worker", "kill both", // both: a worker comes back before a server does
	"stop server", "stop worker", "cut server", "cut pair", "full disk",
}

// campaign is a cluster with a fleet under fire, and the clients of it.
type campaign struct {
	*cluster
	workers []*child
	disk    *cupboard
	random  *rand.Rand
	rows    [][]byte

	learning, predicting *gaps
	roaming              *gaps // predictions of one client that may use any server
	closing              chan struct{}
	publishers           sync.WaitGroup
	predictors           sync.WaitGroup
	begun                atomic.Int64

	mu       sync.Mutex
	promises map[string]lessonAnswer // what was acknowledged, by id; of a raw one the sequence alone; guarded by mu
	events   map[string]int          // the rows of the teaches, by id; guarded by mu
	foretold []foretold              // guarded by mu
	failures map[string]int          // attempts that failed, by why; guarded by mu
	broken   []string                // answers that no fault excuses; guarded by mu
}

// tortured is what came of it.
type tortured struct {
	Seconds            float64                 `json:"seconds"`
	Acknowledged       int                     `json:"acknowledged"`
	Unknown            int                     `json:"unknown"`      // sent, and never acknowledged
	Lost               int                     `json:"lost"`         // acknowledged, and not learned
	Duplicated         int                     `json:"duplicated"`   // learned twice
	Divergent          int                     `json:"divergent"`    // workers whose state is not the log's
	Contradicted       int                     `json:"contradicted"` // answers that the log contradicts
	Repeats            uint64                  `json:"repeats"`      // messages that were stored twice, and learned once
	Predictions        int                     `json:"predictions"`
	Faults             map[string]int          `json:"faults"`
	WithoutPredictions int64                   `json:"longest_without_predictions_ms"`
	OneClientWithout   int64                   `json:"longest_without_predictions_one_client_ms"`
	WithoutLearning    int64                   `json:"longest_without_learning_ms"`
	ByFault            map[string]*tortureGaps `json:"longest_by_fault_ms"`
	Failures           map[string]int          `json:"failed_attempts"`
}

type tortureGaps struct {
	Predictions int64 `json:"predictions"`
	Learning    int64 `json:"learning"`
}

// TestTorture: servers and workers die and hang, routes are cut and a disk
// fills up, while clients teach. Nothing that was acknowledged is lost or
// learned twice, and every replica ends the same. LOCKSTEP_TORTURE says how
// long, LOCKSTEP_JSON set prints the outcome as JSON.
func TestTorture(t *testing.T) {
	duration := 2 * time.Minute
	if text := os.Getenv("LOCKSTEP_TORTURE"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if deadline, ok := t.Deadline(); ok && time.Until(deadline) < duration+5*settle {
		t.Fatalf("%s of torture and the audit need a longer -timeout", duration)
	}
	c := &campaign{
		random: chance(t), rows: penguinEvents(t), closing: make(chan struct{}),
		promises: map[string]lessonAnswer{}, events: map[string]int{}, failures: map[string]int{},
	}
	c.cluster = newCluster(t)
	c.disk = newCupboard(t, c.nodes[c.random.IntN(clusterSize)])
	t.Logf("full disk: %s", c.disk)
	c.start(t)
	c.workers = c.startWorkers(t, killNames...)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.learning, c.predicting, c.roaming = newGaps(), newGaps(), newGaps()
	c.startClients(ctx, t)
	began := time.Now()
	out := &tortured{Faults: map[string]int{}, ByFault: map[string]*tortureGaps{}}
	c.torment(t, duration, out)

	_, longest := c.predicting.window()
	out.WithoutPredictions = longest.Milliseconds()
	_, longest = c.roaming.window()
	out.OneClientWithout = longest.Milliseconds()
	_, longest = c.learning.window()
	out.WithoutLearning = longest.Milliseconds()
	out.Predictions = c.predicting.hits()
	close(c.closing)
	if !inTime(settle, c.publishers.Wait) {
		t.Errorf("%s after the last fault there are events that no retry gets acknowledged", settle)
	}
	cancel()
	c.publishers.Wait()
	c.predictors.Wait()
	out.Seconds = time.Since(began).Seconds()
	c.audit(t, out)
	c.report(t, duration, out)
}

// inTime reports whether a call returns in time.
func inTime(limit time.Duration, call func()) bool {
	done := make(chan struct{})
	go func() { call(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// torment fires one fault after the other, and lets the cluster heal in
// between.
func (c *campaign) torment(t *testing.T, duration time.Duration, out *tortured) {
	var bag []string
	began := time.Now()
	for time.Since(began) < duration || len(out.Faults) < len(tortures) && time.Since(began) < duration+time.Minute {
		if len(bag) == 0 {
			bag = slices.Clone(tortures)
			c.random.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		kind := bag[0]
		bag = bag[1:]
		at := time.Now()
		what := c.fire(t, kind)
		fired := time.Since(at)
		c.heal(t, kind)
		out.Faults[kind]++
		predicting, _ := c.predicting.window()
		learning, _ := c.learning.window()
		worst := out.ByFault[kind]
		if worst == nil {
			worst = &tortureGaps{}
			out.ByFault[kind] = worst
		}
		worst.Predictions, worst.Learning = max(
			worst.Predictions, predicting.Milliseconds(),
		), max(
			worst.Learning, learning.Milliseconds(),
		)
		t.Logf(
			"%s %s: %s after %.1f s, healed after %.1f s; %d ms without predictions, %d ms without learning",
			at.Format(
				time.TimeOnly,
			),
			kind, what, fired.Seconds(), time.Since(at).Seconds(), predicting.Milliseconds(),
			learning.Milliseconds(),
		)
		time.Sleep(time.Duration(c.random.Int64N(int64(time.Second))))
	}
}

// fire does one thing to the cluster and undoes it after a while.
func (c *campaign) fire(t *testing.T, kind string) (what string) {
	a := c.random.IntN(clusterSize)
	b := (a + 1 + c.random.IntN(clusterSize-1)) % clusterSize
	w := c.random.IntN(len(c.workers))
	mode := []linkState{stalled, severed}[c.random.IntN(2)]
	pause := time.Second + time.Duration(c.random.Int64N(int64(5*time.Second)))
	server, victim := c.nodes[a], c.workers[w]
	how := map[linkState]string{stalled: "stalled", severed: "severed"}[mode]
	restart := func() {
		c.workers[w] = c.startWorker(t, victim.name)
		c.workers[w].await(t)
	}
	signal := func(p *child, s syscall.Signal) {
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Errorf("%s: %v: %v", p.name, s, err)
		}
	}
	switch kind {
	case "kill server":
		server.stop(syscall.SIGKILL)
		time.Sleep(pause / 2)
		server.start(t)
		return server.name + " was back"
	case "kill worker":
		victim.stop(syscall.SIGKILL)
		time.Sleep(pause / 2)
		restart()
		return victim.name + " was back"
	case "kill both":
		server.stop(syscall.SIGKILL)
		victim.stop(syscall.SIGKILL)
		restart()
		server.start(t)
		return victim.name + " and then " + server.name + " were back"
	case "stop server":
		signal(server.child, syscall.SIGSTOP)
		time.Sleep(pause)
		signal(server.child, syscall.SIGCONT)
		return server.name + " went on"
	case "stop worker":
		signal(victim, syscall.SIGSTOP)
		time.Sleep(pause)
		signal(victim, syscall.SIGCONT)
		return victim.name + " went on"
	case "cut server":
		for i := range c.nodes {
			if i != a {
				c.between(a, i, mode)
			}
		}
		time.Sleep(pause)
		for i := range c.nodes {
			if i != a {
				c.between(a, i, passing)
			}
		}
		return "the routes of " + server.name + ", " + how + ", were back"
	case "cut pair":
		c.between(a, b, mode)
		time.Sleep(pause)
		c.between(a, b, passing)
		return "the routes between " + server.name + " and " + c.nodes[b].name + ", " + how + ", were back"
	case "full disk":
		full := c.disk.node
		if err := c.disk.fill(); err != nil {
			t.Errorf("full disk: %v", err)
		}
		time.Sleep(2*time.Second + pause)
		if err := c.disk.empty(); err != nil {
			t.Errorf("full disk: %v", err)
		}
		// A server whose store failed stays without JetStream until somebody
		// starts it again, who has made room.
		trouble := ""
		if !full.ended() {
			if trouble = c.ails(5 * time.Second); trouble == "" {
				return full.name + " had room again and went on by itself"
			}
		}
		full.stop(syscall.SIGTERM)
		full.start(t)
		return fmt.Sprintf("%s had room again and was started anew (%s)", full.name, trouble)
	}
	panic(kind)
}

// heal waits until the servers are well and events are learned again.
func (c *campaign) heal(t *testing.T, kind string) {
	if trouble := c.ails(settle); trouble != "" {
		t.Errorf("%s after %s the cluster is not well: %s", settle, kind, trouble)
	}
	for _, g := range []*gaps{c.learning, c.predicting} {
		before := g.hits()
		for deadline := time.Now().Add(settle); g.hits() == before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s after %s, with all servers well, nothing is learned or predicted", settle, kind)
			}
		}
	}
	for i, w := range c.workers {
		if w.ended() {
			lines := strings.Split(strings.TrimSpace(w.output()), "\n")
			t.Errorf("after %s, %s has ended: %v\n%s", kind, w.name, w.err, strings.Join(lines[max(0, len(lines)-12):], "\n"))
			c.workers[i] = c.startWorker(t, w.name)
			c.workers[i].await(t)
		}
	}
}

func (c *campaign) startClients(ctx context.Context, t *testing.T) {
	c.startPublishers(ctx, t)
	for _, n := range c.nodes { // anyone who hangs on a server that is well gets answers
		c.foretell(ctx, connectTo(t, n.url()), c.predicting)
	}
	c.foretell(ctx, connectTo(t, c.urls()), c.roaming)
}

// startPublishers has clients teach, and append to the log.
func (c *campaign) startPublishers(ctx context.Context, t *testing.T) {
	for range tortureTeachers {
		nc := connectTo(t, c.urls())
		c.publish(ctx, "teach", func(ctx context.Context, id string, row []byte) (a lessonAnswer, again bool, err error) {
			answer, err := bus.Ask(ctx, nc, "penguins.teach", row, nats.Header{"Nats-Msg-Id": {id}})
			if err == nil {
				err = json.Unmarshal(answer.Data, &a)
				if err == nil && (a.Seq == 0 || !strings.HasPrefix(a.Status, "learned ")) {
					err = fmt.Errorf("the answer is %s", answer.Data)
				}
				return a, false, err
			}
			var remote *bus.RemoteError
			return a, !errors.As(err, &remote) || remote.Code == 503 || remote.Code == 504, err
		})
	}
	for range torturePublishers {
		nc := connectTo(t, c.urls())
		js, err := jetstream.New(nc.Conn)
		if err != nil {
			t.Fatal(err)
		}
		c.publish(ctx, "raw", func(ctx context.Context, id string, row []byte) (lessonAnswer, bool, error) {
			ack, err := js.Publish(ctx, "penguins.learn", row, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
			if err != nil {
				return lessonAnswer{}, true, err
			}
			return lessonAnswer{Seq: ack.Sequence}, false, nil
		})
	}
}

// publish has a client publish events, each under one id until it is
// acknowledged.
func (c *campaign) publish(
	ctx context.Context, kind string,
	attempt func(context.Context, string, []byte) (a lessonAnswer, again bool, err error),
) {
	event := func() {
		i := int(c.begun.Add(1)) - 1
		id := fmt.Sprintf("%s-%d", kind, i)
		for ctx.Err() == nil {
			patience, done := context.WithTimeout(ctx, killAsk)
			a, again, err := attempt(patience, id, c.rows[i%len(c.rows)])
			done()
			c.mu.Lock()
			switch {
			case err == nil:
				c.promises[id] = a
				if kind == "teach" {
					c.events[id] = i
				}
			case again:
				c.failures[kind+": "+why(err)]++
			default:
				c.broken = append(c.broken, fmt.Sprintf("%s: %v", id, err))
			}
			c.mu.Unlock()
			if err == nil {
				c.learning.hit()
			}
			if err == nil || !again {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	c.publishers.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-c.closing:
				return
			case <-time.After(torturePause):
				event()
			}
		}
	})
}

var number = regexp.MustCompile(`[0-9]+|\([A-Za-z0-9]{22}\)`)

// why is an error without what differs each time.
func why(err error) string { return number.ReplaceAllString(err.Error(), "#") }

// foretell has a client ask for predictions, whatever became of the ones
// before, and notes when one came.
func (c *campaign) foretell(ctx context.Context, nc *bus.Conn, came *gaps) {
	c.predictors.Go(func() {
		var asked sync.WaitGroup
		defer asked.Wait()
		for i := 0; ; i++ {
			select {
			case <-c.closing:
				return
			case <-ctx.Done():
				return
			case <-time.After(torturePause):
			}
			asked.Go(func() {
				f, err := predictRow(ctx, nc, c.rows[i%len(c.rows)])
				if err == nil {
					came.hit()
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				switch {
				case err != nil:
					c.failures["predict: "+why(err)]++
				case i%tortureSample == 0:
					c.foretold = append(c.foretold, f)
				}
			})
		}
	})
}

// predictRow asks once for a prediction of what an event is about.
func predictRow(ctx context.Context, nc *bus.Conn, row []byte) (f foretold, err error) {
	var event struct {
		Attributes json.RawMessage `json:"attributes"`
	}
	if err := json.Unmarshal(row, &event); err != nil {
		return f, err
	}
	ctx, cancel := context.WithTimeout(ctx, killAsk)
	defer cancel()
	answer, err := bus.Ask(ctx, nc, "penguins.predict", event.Attributes, nats.Header{})
	if err == nil {
		f.row, err = event.Attributes, json.Unmarshal(answer.Data, &f)
	}
	return f, err
}

// audit folds the log and compares everything with that.
func (c *campaign) audit(t *testing.T, out *tortured) {
	nc := connectTo(t, c.urls())
	log, err := bus.BindLog(t.Context(), nc, bus.LogConfig{Model: "penguins"})
	if err != nil {
		t.Fatal(err)
	}
	replicas, last := c.agree(t, nc, log)
	f := c.fold(t, log, last, replicas)
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Acknowledged, out.Failures, out.Repeats = len(c.promises), c.failures, f.model.Duplicates()
	out.Unknown = int(c.begun.Load()) - len(c.promises)
	if n := f.model.Rejected(); n > 0 {
		t.Errorf("%d events of the log were rejected", n)
	}
	for id, n := range f.learned { // order: a sum, and some lines of a failure
		if n > 1 {
			out.Duplicated++
			t.Errorf("%s is learned %d times", id, n)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.promises)) {
		told, is := c.promises[id], f.first[id]
		switch {
		case f.learned[id] == 0:
			out.Lost++
			t.Errorf("%s was acknowledged at %d, and is not learned; in the log there it is %q", id, told.Seq, f.ids[told.Seq])
		case strings.HasPrefix(id, "raw-") && f.ids[told.Seq] != id, strings.HasPrefix(id, "teach-") && !told.same(is):
			out.Contradicted++
			t.Errorf("%s was answered %+v; in the log it is %+v, and %q is at %d", id, told, is, f.ids[told.Seq], told.Seq)
		}
	}
	out.Contradicted += f.contradicted
	for _, name := range killNames {
		at := slices.IndexFunc(replicas, func(s fleet.Status) bool { return s.Replica == name })
		if at < 0 {
			out.Divergent++
			t.Errorf("%s does not say what its state is", name)
			continue
		}
		if s, is := replicas[at], f.states[replicas[at].Seq]; s.Seq != last || s.State != "ready" ||
			s.Digest != is.digest ||
			s.Learned != is.learned {
			out.Divergent++
			t.Errorf(
				"%s is %s at %d with %d learned, digest %s; the log there has %d learned, digest %s, and ends at %d",
				name, s.State, s.Seq, s.Learned, s.Digest, is.learned, is.digest, last,
			)
		}
	}
	for _, text := range c.broken {
		t.Error(text)
	}
	c.again(t, nc)
}

// agree waits until all workers have the log's last sequence and one digest,
// and returns what they say in the end.
func (c *campaign) agree(t *testing.T, nc *bus.Conn, log *bus.Log) (replicas []fleet.Status, last uint64) {
	for deadline := time.Now().Add(settle); ; {
		var err error
		replicas, err = fleetStatus(t.Context(), nc, "penguins", 500*time.Millisecond)
		if err == nil {
			_, last, err = log.End(t.Context())
		}
		same := err == nil && len(replicas) == len(c.workers)
		for _, s := range replicas {
			same = same && s.State == "ready" && s.Seq == last && s.Digest == replicas[0].Digest
		}
		if same {
			return replicas, last
		}
		if time.Now().After(deadline) {
			t.Errorf("%s after the last event the workers do not agree: %v %+v", settle, err, replicas)
			return replicas, last
		}
	}
}

// folded is what the log says.
type folded struct {
	model        *model.Model
	first        map[string]lessonAnswer // by id
	learned      map[string]int          // how often, by id
	ids          map[uint64]string       // of the messages, by sequence
	states       map[uint64]foldedState  // at the sequences that replicas are at
	contradicted int                     // predictions that are others there
}

type foldedState struct {
	digest  string
	learned uint64
}

// fold folds the log up to a sequence.
func (c *campaign) fold(t *testing.T, log *bus.Log, last uint64, replicas []fleet.Status) *folded {
	m, err := model.New(model.DefaultSpec())
	if err != nil {
		t.Fatal(err)
	}
	f := &folded{
		model: m, first: map[string]lessonAnswer{}, learned: map[string]int{}, ids: map[uint64]string{},
		states: map[uint64]foldedState{},
	}
	due := map[uint64][]foretold{}
	for _, p := range c.foretold {
		due[p.Seq] = append(due[p.Seq], p)
	}
	asked := map[uint64]bool{}
	for _, s := range replicas {
		asked[s.Seq] = true
	}
	decoder := model.NewDecoder(m.Spec())
	ctx, cancel := context.WithTimeout(t.Context(), 2*settle)
	defer cancel()
	err = log.Tail(
		ctx,
		bus.Position{Check: func(msg *bus.Message) bool { return m.IsTip(asFolded(msg)) }},
		func(msg *bus.Message) error {
			id := strings.Clone(msg.ID)
			f.ids[msg.Seq] = id
			for _, o := range m.Apply(asFolded(msg)).Outcomes {
				if o.Verdict != model.Learned {
					continue
				}
				predicted := "None"
				if o.Answer.Known {
					predicted = o.Answer.Predicted.String()
				}
				f.learned[id]++
				f.first[id] = lessonAnswer{
					Seq: msg.Seq, Learned: o.Answer.Learned,
					Status: fmt.Sprintf("learned %s. Initially predicted %s", o.Answer.Label, predicted),
				}
			}
			if asked[msg.Seq] {
				f.states[msg.Seq] = foldedState{fmt.Sprintf("%x", m.Digest()), m.Learned()}
			}
			for _, p := range due[msg.Seq] {
				row, err := decoder.Attributes(p.row)
				if err != nil {
					return err
				}
				is, want, species := m.Predict(row), "", ""
				if is.Known {
					want = is.Label.String()
				}
				if p.Species != nil {
					species = *p.Species
				}
				if species != want || p.Learned != m.Learned() {
					f.contradicted++
					t.Errorf(
						"at %d the prediction was %q with %d learned, in the log it is %q with %d", p.Seq, species,
						p.Learned, want, m.Learned(),
					)
				}
			}
			delete(due, msg.Seq)
			if msg.Seq >= last {
				return errEnd
			}
			return nil
		},
	)
	if !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	for seq, all := range due { // order: a sum, and some lines of a failure
		f.contradicted += len(all)
		t.Errorf("%d predictions at %d, which the log does not have", len(all), seq)
	}
	return f
}

// again asks some events once more: anyone who answers gives the first answer.
func (c *campaign) again(t *testing.T, nc *bus.Conn) {
	ids := slices.Sorted(maps.Keys(c.events))
	for range min(100, len(ids)) {
		id := ids[c.random.IntN(len(ids))]
		told := c.promises[id]
		if told.Learned+60_000 < uint64(len(c.promises)) {
			continue // its id may be forgotten
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		answer, err := bus.Ask(
			ctx, nc, "penguins.teach", c.rows[c.events[id]%len(c.rows)], nats.Header{"Nats-Msg-Id": {id}},
		)
		cancel()
		var a lessonAnswer
		if err == nil {
			err = json.Unmarshal(answer.Data, &a)
		}
		if err != nil || !a.Duplicate || !a.same(told) {
			t.Errorf("%s was answered %+v, and when asked again %+v, %v", id, told, a, err)
		}
	}
}

func (c *campaign) report(t *testing.T, duration time.Duration, out *tortured) {
	line, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("LOCKSTEP_JSON") != "" {
		fmt.Println(string(line))
	}
	t.Logf(
		"%.0f s, %d events acknowledged, %d unknown, %d lost, %d duplicated, %d divergent, %d contradicted; %d messages "+
			"stored again and not learned again; %d predictions",
		out.Seconds, out.Acknowledged, out.Unknown, out.Lost, out.Duplicated, out.Divergent, out.Contradicted,
		out.Repeats, out.Predictions,
	)
	t.Logf(
		"longest without predictions %d ms (one client: %d ms), without learning %d ms", out.WithoutPredictions,
		out.OneClientWithout, out.WithoutLearning,
	)
	for _, kind := range tortures {
		n := out.Faults[kind]
		if n == 0 {
			if duration >= 2*time.Minute {
				t.Errorf("no %s in %s", kind, duration)
			}
			continue
		}
		t.Logf(
			"%3d × %-12s at most %5d ms without predictions, %5d ms without learning", n, kind,
			out.ByFault[kind].Predictions, out.ByFault[kind].Learning,
		)
	}
	for _, text := range slices.Sorted(maps.Keys(out.Failures)) {
		t.Logf("%5d × %s", out.Failures[text], text)
	}
}

// TestServerDeath: a server dies, and a worker hangs on it. Clients on the
// other servers ask on.
func TestServerDeath(t *testing.T) {
	for _, names := range [][]string{{"w1"}, killNames} {
		t.Run(fmt.Sprintf("%d workers", len(names)), func(t *testing.T) {
			const deaths = 5
			const bound = 10 * time.Second
			c := newCluster(t)
			c.start(t)
			c.startWorkers(t, names...)
			rows := penguinEvents(t)
			first := connectTo(t, c.urls())
			if err := teachOne(t.Context(), first, rows[0]); err != nil {
				t.Fatal(err)
			}
			var predictions, lessons, appends []time.Duration
			for k := range deaths {
				name := "lockstep worker " + names[k%len(names)] + " (penguins)"
				victim := c.host(name)
				if victim < 0 {
					t.Fatalf("no server has the client %q", name)
				}
				predicting, learning, appending := c.bereave(t, victim, fmt.Sprintf("death-%d", k), rows)
				t.Logf(
					"the server of %s dies: %d ms without predictions, %d ms without teaches, %d ms without appends",
					names[k%len(names)], predicting.Milliseconds(), learning.Milliseconds(),
					appending.Milliseconds(),
				)
				if predicting > bound {
					t.Errorf("%s without predictions", predicting)
				}
				predictions, lessons = append(predictions, predicting), append(lessons, learning)
				appends = append(appends, appending)
			}
			for what, all := range map[string][]time.Duration{"predictions": predictions, "teaches": lessons, "appends to the log": appends} { // order: each is a line
				slices.Sort(all)
				t.Logf(
					"%d workers, %d deaths: without %s for %d ms in the median, %d at most", len(names), deaths,
					what, all[deaths/2].Milliseconds(), all[deaths-1].Milliseconds(),
				)
			}
		})
	}
}

// bereave kills a server and returns how long clients on the others get no
// predictions, teach nothing, and get nothing stored. Afterwards all is well
// again.
func (c *cluster) bereave(
	t *testing.T, victim int, id string, rows [][]byte,
) (predicting, learning, appending time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	predictions, lessons, appends := newGaps(), newGaps(), newGaps()
	for i, n := range c.nodes {
		if i == victim {
			continue
		}
		nc := connectTo(t, n.url())
		clients.Go(func() { // each asks again whatever became of the last
			for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
				clients.Go(func() {
					if _, err := predictRow(ctx, nc, rows[0]); err == nil {
						predictions.hit()
					}
				})
			}
		})
		clients.Go(func() {
			for k := 0; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
				attempt, done := context.WithTimeout(ctx, killAsk)
				_, err := bus.Ask(
					attempt, nc, "penguins.teach", rows[k%len(rows)],
					nats.Header{"Nats-Msg-Id": {fmt.Sprintf("%s-%d-%d", id, i, k)}},
				)
				done()
				if err == nil {
					lessons.hit()
					k++
				}
			}
		})
	}
	js, err := jetstream.New(connectTo(t, c.nodes[(victim+1)%clusterSize].url()).Conn)
	if err != nil {
		t.Fatal(err)
	}
	clients.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			attempt, done := context.WithTimeout(ctx, killAsk)
			if _, err := js.Publish(attempt, "penguins.learn", rows[0], jetstream.WithRetryAttempts(0)); err == nil {
				appends.hit()
			}
			done()
		}
	})
	await := func(what string, g *gaps, more int) {
		before := g.hits()
		for deadline := time.Now().Add(settle); g.hits() < before+more; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s without %s", settle, what)
			}
		}
	}
	await("predictions", predictions, 20)
	await("learning", lessons, 20)
	time.Sleep(500 * time.Millisecond)
	for _, g := range []*gaps{predictions, lessons, appends} {
		g.window()
	}
	c.nodes[victim].stop(syscall.SIGKILL)
	time.Sleep(3 * time.Second)
	await("predictions", predictions, 20)
	await("learning", lessons, 20)
	await("appends", appends, 20)
	predicting, _ = predictions.window()
	learning, _ = lessons.window()
	appending, _ = appends.window()
	c.nodes[victim].start(t)
	if trouble := c.ails(settle); trouble != "" {
		t.Fatalf("%s after its server came back the cluster is not well: %s", settle, trouble)
	}
	return predicting, learning, appending
}
