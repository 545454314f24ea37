package worker

import (
	"bytes"
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// replica is the worker's model and what is said of it. The fold and the
// doors share it; each holds the lock for one message or one request.
type replica struct {
	applied atomic.Uint64 // the model's sequence

	mu      sync.Mutex
	model   *model.Model // guarded by mu
	trail   trail        // guarded by mu
	tail    []byte       // what every reply of this sequence ends with; guarded by mu
	labels  [][]byte     // the labels as JSON, by class; guarded by mu
	tamper  func(*model.Model) *model.Model
	awaited map[string][]*told // by Nats-Msg-Id: teaches that await the fold's word; guarded by mu
	watch   *watch             // what onlookers see; guarded by mu
}

// told is what the fold said of a message while a teach awaited it.
type told struct {
	results []toldResult
}

type toldResult struct {
	seq      uint64
	outcomes []model.Outcome
}

func newReplica(m *model.Model, tamper func(*model.Model) *model.Model, behind *lag) *replica {
	return &replica{model: m, tamper: tamper, awaited: map[string][]*told{}, watch: newWatch(behind)}
}

// apply folds one message and tells those who await its id.
func (r *replica) apply(e *model.Entry, rejected func(*model.Result, [32]byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := r.model.ApplyEntry(e)
	r.applied.Store(result.Seq)
	r.watch.see(r.model, result, e.Time)
	r.tail = r.tail[:0]
	if e.ID != "" && len(r.awaited) > 0 {
		for _, t := range r.awaited[e.ID] {
			t.results = append(t.results, toldResult{result.Seq, append([]model.Outcome(nil), result.Outcomes...)})
		}
	}
	if r.tamper != nil {
		r.model = r.tamper(r.model)
	}
	r.trail.note(r.model)
	for _, o := range result.Outcomes {
		if o.Verdict == model.Rejected {
			rejected(result, r.model.LogChain())
			break
		}
	}
}

// await starts to listen for what the fold says of an id.
func (r *replica) await(id string) *told {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &told{}
	r.awaited[id] = append(r.awaited[id], t)
	return t
}

// forget ends an await.
func (r *replica) forget(id string, t *told) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := r.awaited[id][:0]
	for _, other := range r.awaited[id] {
		if other != t {
			rest = append(rest, other)
		}
	}
	if len(rest) == 0 {
		delete(r.awaited, id)
		return
	}
	r.awaited[id] = rest
}

// position is where the log's tail goes on.
func (r *replica) position() bus.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bus.Position{Applied: r.model.Seq(), Check: func(msg *bus.Message) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.model.IsTip(Message(r.model.Spec().Name, msg))
	}}
}

// replyTail is the end of every reply made at this sequence. It is built once
// per sequence, for it is the same for all. The caller holds mu.
func (r *replica) replyTail() []byte {
	if len(r.tail) == 0 {
		r.tail = strconv.AppendUint(append(r.tail, `,"learned":`...), r.model.Learned(), 10)
		r.tail = strconv.AppendUint(append(r.tail, `,"seq":`...), r.model.Seq(), 10)
		r.tail = append(append(append(r.tail, `,"receipt":"`...), r.model.Receipt().String()...), `"}`...)
	}
	return r.tail
}

// appendLabel appends a class's label as JSON. The caller holds mu.
func (r *replica) appendLabel(dst []byte, p model.Prediction) []byte {
	if !p.Known {
		return append(dst, "null"...)
	}
	for len(r.labels) <= p.Class() {
		r.labels = append(r.labels, quote(r.model.Labels()[len(r.labels)]))
	}
	return append(dst, r.labels[p.Class()]...)
}

// quote is a text as JSON.
func quote(text string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic(err) // texts always encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// receipt names the replica's present state.
func (r *replica) receipt() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.model.Receipt().String()
}

// incarnation names the log that was folded.
func (r *replica) incarnation() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.model.Incarnation()
}

// describe fills in a heartbeat what the model says of itself.
func (r *replica) describe(h *fleet.Heartbeat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Seq, h.Identity = r.model.Seq(), fleet.IdentityOf(r.model)
	h.LogChain, h.StateChain = fleet.Chains(r.model)
}

// describeStatus fills in a status what the model says of itself.
func (r *replica) describeStatus(s *fleet.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Describe(r.model)
}

// reset goes on with another model: one that has learned nothing, or one that
// was restored.
func (r *replica) reset(m *model.Model) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.model, r.tail, r.labels = m, r.tail[:0], nil
	r.trail.log, r.trail.state = 0, 0
	r.trail.note(m)
	r.watch.reset(m)
	r.applied.Store(m.Seq())
}
