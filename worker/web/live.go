package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
	"lockstep/worker/serve"
)

// Limits of the live page.
const (
	liveEvery    = 250 * time.Millisecond // between states
	liveAlive    = 5 * time.Second        // a reader hears something at least that often
	livePatience = 20 * time.Second       // for a reader to take what was written
	maxReaders   = 256
	maxClasses   = 12  // in the confusion matrix, the most frequent
	maxValues    = 200 // that a form offers for one input
	maxReplicas  = 64  // that are shown
	maxRows      = 16  // of the log that are read at once
	trafficSpan  = 10  // seconds that latencies are of
)

// live computes what the page shows, once for all who look, and only while
// somebody does.
type live struct {
	server *Server
	boot   string // of this process, so that a page knows a restart
	rows   chan struct{}

	mu      sync.Mutex
	readers int           // guarded by mu
	by      *computer     // who makes the moments now; guarded by mu
	now     *moment       // the latest; guarded by mu
	changed chan struct{} // closed when now is replaced; guarded by mu
}

// moment is one state of the page. It is never changed, so all readers share
// it, and who is slow skips those that came in between.
type moment struct {
	hello  []byte // what stays the same while the worker does, nil before there is one
	state  []byte
	view   replica.View
	points []byte // all of them
}

func newLive(s *Server) *live {
	return &live{server: s, boot: bus.NewID(), rows: make(chan struct{}, maxRows), changed: make(chan struct{})}
}

// latest is the present moment, and a channel that is closed at the next.
func (l *live) latest() (*moment, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// enter counts a reader, and begins to compute for the first. The first
// state is there when it returns.
func (l *live) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readers >= maxReaders {
		return false
	}
	if l.readers++; l.readers == 1 {
		l.by = &computer{live: l}
		l.now = l.by.moment()
		go l.by.run()
	}
	return true
}

func (l *live) exit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readers--
}

// computer makes the moments.
type computer struct {
	live    *live
	served  *served
	hello   []byte
	traffic meter
}

func (c *computer) run() {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	l := c.live
	for range tick.C {
		next := c.moment()
		l.mu.Lock()
		if l.readers == 0 || l.by != c {
			l.mu.Unlock()
			return
		}
		if !bytes.Equal(next.state, l.now.state) || !bytes.Equal(next.hello, l.now.hello) {
			l.now = next
			close(l.changed)
			l.changed = make(chan struct{})
		}
		l.mu.Unlock()
	}
}

func (c *computer) moment() *moment {
	served := c.live.server.worker.Load()
	if served == nil {
		return &moment{state: encode(map[string]string{"waiting": notAttached})}
	}
	if served != c.served {
		c.served, c.hello, c.traffic = served, c.greet(served), meter{}
	}
	v := served.View()
	s := state{
		Self: served.server.Status(), Unready: served.Unready(), Classes: classes(&v),
		Tail: verdicts(v.Tail), Values: map[string][]string{},
	}
	s.Self.UptimeS = 0 // else each state were another
	for i, f := range served.Spec().Inputs {
		if f.Type == model.Category {
			s.Values[f.Name] = some(v.Values[i])
		}
	}
	s.Fleet = fleetOf(served, &s.Self)
	s.Traffic = c.traffic.read(time.Now(), served.server.Traffic(), &c.live.server.metrics.http)
	return &moment{hello: c.hello, state: encode(s), view: v, points: points(&v, 0)}
}

// encode is a value as JSON; an error says so in its place.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil { // a number that is not finite
		data, _ = json.Marshal(map[string]string{"waiting": "the state could not be written: " + err.Error()})
	}
	return data
}

// greet is what a page must know once.
func (c *computer) greet(served *served) []byte {
	type input struct {
		Name     string   `json:"name"`
		Number   bool     `json:"number"`
		Type     string   `json:"type"`
		Nullable bool     `json:"nullable"`
		Min      *float64 `json:"min,omitempty"`
		Max      *float64 `json:"max,omitempty"`
		MaxBytes int      `json:"max_bytes,omitempty"`
	}
	spec := served.Spec()
	inputs := []input{}
	for _, f := range spec.Inputs {
		in := input{Name: f.Name, Number: f.Type == model.Number, Type: f.Type.String(), Nullable: f.Nullable}
		if in.Number {
			in.Min, in.Max = finite(f.Min), finite(f.Max)
		} else {
			in.MaxBytes = f.MaxBytes
		}
		inputs = append(inputs, in)
	}
	return encode(map[string]any{
		"boot": c.live.boot, "model": spec.Name, "semantics": spec.Semantics, "label": spec.Label.Name, "label_type": spec.Label.Type.String(), "inputs": inputs,
		"replica": served.Name(), "version": c.live.server.cfg.Version, "page": pageHash,
	})
}

// finite is nil for a bound that was not given.
func finite(v float64) *float64 {
	if v-v != 0 {
		return nil
	}
	return &v
}

// state is what changes.
type state struct {
	Self    fleet.Status        `json:"self"`
	Unready string              `json:"unready"`
	Fleet   fleetState          `json:"fleet"`
	Classes classState          `json:"classes"`
	Values  map[string][]string `json:"values"` // seen, by input
	Tail    []said              `json:"tail"`   // the newest first
	Traffic trafficState        `json:"traffic"`
}

// fleetState is the replicas side by side.
type fleetState struct {
	Reachable bool           `json:"reachable"`
	At        uint64         `json:"at"`    // the sequence of the chain that those have that agree
	Chain     string         `json:"chain"` // of this replica, there
	More      int            `json:"more"`  // replicas that are not shown
	Replicas  []replicaState `json:"replicas"`
}

type replicaState struct {
	Name      string `json:"name"`
	Self      bool   `json:"self,omitempty"`
	State     string `json:"state"`
	Agreement string `json:"agreement"` // agrees, differs, unknown or another
	Note      string `json:"note,omitempty"`
	Seq       uint64 `json:"seq"`
	Behind    uint64 `json:"behind"`
	Chain     string `json:"chain,omitempty"` // its own, where it does not agree
	Heard     int64  `json:"heard,omitempty"` // seconds since 1970, of one that is gone
	Version   string `json:"version"`
}

// fleetOf puts the replicas side by side. Who differs is told from this one;
// if most that live differ from it, then it is this one that does.
func fleetOf(served *served, self *fleet.Status) fleetState {
	peers, at, chain, reachable := served.Peers()
	out := fleetState{Reachable: reachable, At: at, Chain: chain[:16]}
	furthest := self.Seq
	with, against := 1, 0
	for _, p := range peers {
		if p.Gone || p.Agreement == fleet.Incomparable {
			continue
		}
		if p.Votes {
			furthest = max(furthest, min(p.Seq, self.Seq+self.Lag)) // no one is further than the log
		}
		switch p.Agreement {
		case fleet.Agrees:
			with++
		case fleet.OtherState, fleet.OtherDigest, fleet.OtherLog:
			against++
		}
	}
	own := replicaState{
		Name: self.Replica, Self: true, State: self.State, Agreement: "agrees",
		Note: self.Advisory, Seq: self.Seq, Behind: furthest - self.Seq, Version: self.Version,
	}
	if against > with {
		own.Agreement, own.Chain = "differs", chain[:16]
	}
	out.Replicas = append(out.Replicas, own)
	for _, p := range peers {
		r := replicaState{
			Name: p.Replica, State: p.State, Note: p.Advisory, Seq: p.Seq,
			Behind: furthest - min(furthest, p.Seq), Version: p.Version,
		}
		short := p.StateChain[:min(len(p.StateChain), 16)]
		switch p.Agreement {
		case fleet.Agrees:
			r.Agreement = "agrees"
		case fleet.OtherState:
			r.Agreement, r.Chain = "differs", short
		case fleet.OtherDigest:
			r.Agreement, r.Chain = "differs", p.Digest[:min(len(p.Digest), 16)]
		case fleet.OtherLog:
			r.Agreement, r.Chain = "differs", p.LogChain[:min(len(p.LogChain), 16)]
			r.Note = cmp.Or(r.Note, "it reads another log: its server has another history")
		case fleet.Incomparable:
			r.Agreement, r.Chain = "another", short
			r.Note = cmp.Or(r.Note, "another log, contract or encoding: it is no replica of this model")
		default:
			r.Agreement, r.Chain = "unknown", short
		}
		if p.Gone {
			r.State, r.Heard, r.Chain = fleet.Stopped.String(), p.Heard.Unix(), short // of where it stopped
			r.Note = ""                                                               // what it said while it ran
			if p.State == fleet.Quarantined.String() {
				r.Note = "it was quarantined: " + p.Advisory
			}
		}
		out.Replicas = append(out.Replicas, r)
	}
	slices.SortStableFunc(out.Replicas, func(a, b replicaState) int { return cmp.Compare(a.Name, b.Name) })
	if more := len(out.Replicas) - maxReplicas; more > 0 {
		slices.SortStableFunc(out.Replicas, func(a, b replicaState) int { return cmp.Compare(a.place(), b.place()) })
		out.Replicas, out.More = out.Replicas[:maxReplicas], more
	}
	return out
}

// place puts first what must be seen.
func (r *replicaState) place() int {
	switch {
	case r.Self:
		return 0
	case r.Agreement == "differs" || r.State == fleet.Quarantined.String():
		return 1
	case r.State != fleet.Ready.String():
		return 2
	}
	return 3
}

// classState is the confusion of the most frequent classes.
type classState struct {
	Labels    []string   `json:"labels"`    // as learned, those that have a colour of their own first
	Shown     []int      `json:"shown"`     // which, by their place in labels
	Given     []uint64   `json:"given"`     // events by shown class
	Confusion [][]uint64 `json:"confusion"` // by shown class: none, the shown ones, all others
	Total     int        `json:"total"`     // labels there are
}

// some are the first of many texts, and no null.
func some(texts []string) []string {
	return append([]string{}, texts[:min(len(texts), maxValues)]...)
}

func classes(v *replica.View) classState {
	out := classState{
		Labels: some(v.Labels), Shown: []int{}, Given: []uint64{}, Confusion: [][]uint64{}, Total: len(v.Labels),
	}
	for class := range v.Given {
		out.Shown = append(out.Shown, class)
	}
	slices.SortStableFunc(out.Shown, func(a, b int) int { return cmp.Compare(v.Given[b], v.Given[a]) })
	out.Shown = out.Shown[:min(len(out.Shown), maxClasses)]
	out.Shown = slices.DeleteFunc(out.Shown, func(class int) bool { return class >= len(out.Labels) })
	slices.Sort(out.Shown)
	for _, class := range out.Shown {
		row := []uint64{v.Confusion[class][0]}
		others := v.Given[class] - row[0]
		for _, predicted := range out.Shown {
			n := v.Confusion[class][predicted+1]
			row = append(row, n)
			others -= n
		}
		out.Given = append(out.Given, v.Given[class])
		out.Confusion = append(out.Confusion, append(row, others))
	}
	return out
}

// said is a verdict of the log's tail.
type said struct {
	Seq       uint64  `json:"seq"`
	Index     *int    `json:"index,omitempty"` // in a batch
	Stored    int64   `json:"stored"`          // milliseconds since 1970
	Verdict   string  `json:"verdict"`
	Label     string  `json:"label"`
	Predicted *string `json:"predicted"` // null: nothing was
	Proba     float64 `json:"proba,omitempty"`
	Problem   string  `json:"problem,omitempty"`
}

func verdicts(all []replica.Said) []said {
	out := make([]said, 0, len(all))
	for _, s := range slices.Backward(all) {
		t := said{
			Seq: s.Seq, Stored: s.Stored / int64(time.Millisecond), Verdict: s.Verdict.String(),
			Label: s.Label, Proba: s.Proba, Problem: s.Problem,
		}
		if s.Index >= 0 {
			t.Index = &s.Index
		}
		if s.Known {
			t.Predicted = &s.Predicted
		}
		out = append(out, t)
	}
	return out
}

// points are those of a view from the first on that a reader does not have.
func points(v *replica.View, first int) []byte {
	b := fmt.Appendf(nil, `{"generation":%d,"first":%d,"from":%d,"points":[`, v.Generation, first, v.From)
	for i, p := range v.Points[first:] {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "[%d,%d", p.Seq, p.Scored)
		for _, x := range [...]float64{p.Accuracy, p.LogLoss, p.RollingAccuracy, p.RollingLoss} {
			b = strconv.AppendFloat(append(b, ','), x, 'g', 5, 64)
		}
		b = append(b, ']')
	}
	return append(b, "]}"...)
}

// trafficState is what comes by this worker's doors.
type trafficState struct {
	At     int64   `json:"at"`   // changes with each reading, once a second
	Rate   float64 `json:"rate"` // answers a second
	HTTP   float64 `json:"http"` // of them over HTTP
	Errors float64 `json:"errors"`
	P50    float64 `json:"p50"` // seconds; 0 while there is nothing
	P99    float64 `json:"p99"`
}

// meter reads counters once a second.
type meter struct {
	last    time.Time
	reading []counted // the last ones, the newest last
	told    trafficState
}

type counted struct {
	at                  time.Time
	total, http, errors uint64
	buckets             []uint64
}

func (m *meter) read(now time.Time, nats, web *serve.Traffic) trafficState {
	if now.Sub(m.last) < time.Second {
		return m.told
	}
	m.last = now
	c := counted{at: now, buckets: make([]uint64, len(serve.Buckets)+1)}
	for v, verb := range serve.Verbs {
		if verb == "status" {
			continue
		}
		for _, door := range []*serve.Traffic{nats, web} {
			for i, code := range serve.Codes {
				n := door.Answers(v, i)
				c.total += n
				if door == web {
					c.http += n
				}
				if code != http.StatusOK {
					c.errors += n
				}
			}
			buckets, _ := door.Latencies(v)
			for i, n := range buckets {
				c.buckets[i] += n
			}
		}
	}
	m.reading = append(m.reading, c)
	if len(m.reading) > trafficSpan+1 {
		m.reading = m.reading[1:]
	}
	if len(m.reading) < 2 {
		return m.told
	}
	before, first := m.reading[len(m.reading)-2], m.reading[0]
	seconds := now.Sub(before.at).Seconds()
	m.told = trafficState{
		At: now.Unix(), Rate: float64(c.total-before.total) / seconds, HTTP: float64(c.http-before.http) / seconds, Errors: float64(c.errors-before.errors) / seconds,
	}
	span := make([]uint64, len(c.buckets))
	for i := range span {
		span[i] = c.buckets[i] - first.buckets[i]
	}
	m.told.P50, m.told.P99 = quantile(span, 0.5), quantile(span, 0.99)
	return m.told
}

// quantile is the time that a share of the answers took at most, evenly
// spread within a bucket; 0 if there are none.
func quantile(buckets []uint64, share float64) float64 {
	total := uint64(0)
	for _, n := range buckets {
		total += n
	}
	rank := share * float64(total)
	sum, lower := 0.0, 0.0
	for i, n := range buckets[:len(serve.Buckets)] {
		upper := serve.Buckets[i].Seconds()
		if n > 0 && sum+float64(n) >= rank {
			return lower + (upper-lower)*(rank-sum)/float64(n)
		}
		sum += float64(n)
		lower = upper
	}
	if total == 0 {
		return 0
	}
	return lower
}

// stream sends one reader the state as it changes: events hello, points and
// state. A reader that is slow gets the latest when it takes it, and none of
// those before.
func (l *live) stream(w http.ResponseWriter, r *http.Request) {
	if !l.enter() {
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open already", maxReaders))
		return
	}
	defer l.exit()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy is to pass it on at once
	control := http.NewResponseController(w)
	var buf bytes.Buffer
	buf.WriteString("retry: 1000\n\n")
	alive := time.NewTicker(liveAlive)
	defer alive.Stop()
	var has *moment // what the reader has
	for {
		now, changed := l.latest()
		if now != has {
			compose(&buf, has, now)
			has = now
		}
		control.SetWriteDeadline(time.Now().Add(livePatience))
		if _, err := w.Write(buf.Bytes()); err != nil || control.Flush() != nil {
			return
		}
		buf.Reset()
		select {
		case <-changed:
		case <-alive.C:
			buf.WriteString("event: alive\ndata:\n\n")
		case <-r.Context().Done():
			return
		case <-l.server.closing:
			return
		}
	}
}

// compose writes what a reader needs to get from one moment to another.
func compose(buf *bytes.Buffer, has, now *moment) {
	event := func(name string, data []byte) {
		fmt.Fprintf(buf, "event: %s\ndata: ", name)
		buf.Write(data) // JSON has no line break
		buf.WriteString("\n\n")
	}
	if has == nil || !bytes.Equal(has.hello, now.hello) {
		has = &moment{}
		if now.hello != nil {
			event("hello", now.hello)
		}
	}
	switch {
	case now.hello == nil:
	case has.hello == nil || has.view.Generation != now.view.Generation:
		event("points", now.points)
	case !bytes.Equal(has.points, now.points):
		// The last point was of that moment, and no point of the log's.
		event("points", points(&now.view, max(0, len(has.view.Points)-1)))
	}
	event("state", now.state)
}

// row answers with an event of the log, to fill the form with.
func (l *live) row(w http.ResponseWriter, r *http.Request) {
	served := l.server.worker.Load()
	if served == nil {
		refuse(w, http.StatusServiceUnavailable, notAttached)
		return
	}
	select {
	case l.rows <- struct{}{}:
		defer func() { <-l.rows }()
	default:
		refuse(w, http.StatusServiceUnavailable, "too many ask for events of the log; try again")
		return
	}
	seq, err := strconv.ParseUint(r.FormValue("seq"), 10, 64)
	index := -1
	if text := r.FormValue("index"); text != "" && err == nil {
		index, err = strconv.Atoi(text)
	}
	if err != nil {
		refuse(
			w, http.StatusUnprocessableEntity,
			"seq and index are to be whole numbers, as in ?seq=345 or ?seq=345&index=7",
		)
		return
	}
	attributes, label, err := served.Row(r.Context(), seq, index)
	if err != nil {
		refuse(w, http.StatusNotFound, err.Error())
		return
	}
	sendValue(w, http.StatusOK, map[string]json.RawMessage{"attributes": attributes, "label": label})
}
