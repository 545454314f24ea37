package worker

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// Answer is what a worker answered to Ask.
type Answer struct {
	Code        int // 0 for a reply, else an error's
	Description string
	Body        []byte
}

// Question is a request that came by another door than NATS.
type Question struct {
	Verb   string              // predict, teach or explain
	Data   []byte              // the body; not to be changed until the answer
	Header func(string) string // the first value of a header, or empty
	Names  []string            // of all headers
}

// Ask answers a request through the very handlers that answer over NATS, so
// that every door says the same. It refuses with 503 unless the replica
// serves. If ctx ends first it returns its error, and Data may still be read.
func (w *Worker) Ask(ctx context.Context, q Question) (Answer, error) {
	var handler func(bus.Request)
	switch q.Verb {
	case "predict":
		handler = w.predict
	case "teach":
		handler = w.teach
	case "explain":
		handler = w.explain
	default:
		return Answer{}, fmt.Errorf("no such verb: %q", q.Verb)
	}
	r := &inquiry{q: q, outside: &w.outside}
	if !w.outside.enter() {
		return refusal(503, "this replica does not serve now: "+w.Unready()), nil
	}
	handler(r)
	r.mu.Lock()
	if r.answered { // at once, as most are
		defer r.mu.Unlock()
		return r.answer, nil
	}
	r.told = make(chan struct{})
	r.mu.Unlock()
	select {
	case <-r.told:
		return r.answer, nil
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

func refusal(code int, description string) Answer {
	return Answer{code, description, bus.ErrorBody(code, description, nil)}
}

// Unready says why the replica does not answer, or is empty if it does.
func (w *Worker) Unready() string {
	switch state := w.State(); {
	case state == fleet.Quarantined || w.quarantined.Load():
		return "it is quarantined: " + w.advisory()
	case state != Ready:
		return fmt.Sprintf("it is %s, at sequence %d with %d messages to go", state, w.replica.applied.Load(), w.lag.messages())
	}
	return ""
}

// inquiry is a Question as the handlers read it.
type inquiry struct {
	q       Question
	outside *outside

	mu       sync.Mutex
	answered bool          // guarded by mu
	answer   Answer        // guarded by mu until answered, then constant
	told     chan struct{} // closed once answered; nil while nobody waits; guarded by mu
}

func (r *inquiry) Keep() {} // it is its asker's own

func (r *inquiry) Data() []byte { return r.q.Data }

func (r *inquiry) Header(name string) string {
	if r.q.Header == nil {
		return ""
	}
	return r.q.Header(name)
}

func (r *inquiry) HeaderNames() []string { return r.q.Names }

func (r *inquiry) Reply(body []byte) { r.end(Answer{Body: bytes.Clone(body)}) }

func (r *inquiry) Error(code int, description string, body []byte) {
	r.end(Answer{code, description, body})
}

func (r *inquiry) end(a Answer) {
	r.mu.Lock()
	if r.answered {
		r.mu.Unlock()
		return
	}
	r.answered, r.answer = true, a
	if r.told != nil {
		close(r.told)
	}
	r.mu.Unlock()
	r.outside.exit()
}

// outside counts the requests that come by other doors than NATS: they are
// let in while the replica is in the group, and who leaves it answers them
// first.
type outside struct {
	mu       sync.Mutex
	open     bool          // guarded by mu
	inFlight int           // guarded by mu
	idle     chan struct{} // closed when nothing is in flight; nil while nobody waits; guarded by mu
}

func (o *outside) enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open {
		o.inFlight++
	}
	return o.open
}

func (o *outside) exit() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inFlight--; o.inFlight == 0 && o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

// admit opens or closes the door. What was let in goes on.
func (o *outside) admit(open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open = open
}

// drain waits until nothing is in flight, or returns ctx's error.
func (o *outside) drain(ctx context.Context) error {
	o.mu.Lock()
	if o.inFlight == 0 {
		o.mu.Unlock()
		return nil
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	o.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("requests of other doors still unanswered: %w", ctx.Err())
	}
}

// Name is the replica's own.
func (w *Worker) Name() string { return w.cfg.Name }

// Spec is the model's that the worker serves.
func (w *Worker) Spec() *model.Spec { return w.cfg.Spec }

// Fleet are the live replicas of the same log that this one knows of, itself
// included; nil while that is not known.
func (w *Worker) Fleet() []fleet.Heartbeat { return w.peers() }
