package replica

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// core is the replica's model under its lock, with what is remembered of each
// of its states.
type core struct {
	applied atomic.Uint64 // the model's sequence

	mu     sync.Mutex
	model  *model.Model // guarded by mu
	broken *PanicError  // why the model is not to be used any more; guarded by mu
	trail  trail        // guarded by mu
	watch  *watch       // what onlookers see; guarded by mu
	tamper func(*model.Model) *model.Model
}

func (c *core) init(m *model.Model, tamper func(*model.Model) *model.Model, behind *lag) {
	c.model, c.tamper, c.watch = m, tamper, newWatch(behind)
}

// PanicError is returned when a component panicked while a message was folded.
// The fold is the same everywhere, so it will do so again.
type PanicError struct {
	Seq   uint64 // of the message
	Value any    // of the panic
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("folding sequence %d panicked: %v", e.Seq, e.Value)
}

// Lock returns the model, which is the caller's until Unlock, or nil if it has
// failed and is not to be used. The fold waits meanwhile.
func (r *Replica) Lock() *model.Model {
	r.core.mu.Lock()
	if r.core.broken != nil {
		return nil
	}
	return r.core.model
}

// Unlock ends the use of the model; see Lock.
func (r *Replica) Unlock() { r.core.mu.Unlock() }

// apply folds one message, and calls rejected, under the lock, if one of its
// events was. If a component panics the model is given up: it may have learned
// half of the message.
func (c *core) apply(e *model.Entry, rejected func(*model.Result, [32]byte)) (result *model.Result, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if value := recover(); value != nil {
			c.broken = &PanicError{e.Seq, value, debug.Stack()}
			err = c.broken
		}
	}()
	result = c.model.ApplyEntry(e)
	c.applied.Store(result.Seq)
	c.watch.see(c.model, result, e.Time)
	if c.tamper != nil {
		c.model = c.tamper(c.model)
	}
	c.trail.note(c.model)
	for _, o := range result.Outcomes {
		if o.Verdict == model.Rejected {
			rejected(result, c.model.LogChain())
			break
		}
	}
	return result, nil
}

// position is where the log's tail goes on.
func (c *core) position() bus.Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bus.Position{Applied: c.model.Seq(), Check: func(msg *bus.Message) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.model.IsTip(Message(c.model.Spec().Name, msg))
	}}
}

// incarnation names the log that was folded.
func (c *core) incarnation() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.model.Incarnation()
}

// heartbeat fills in what the model says of itself.
func (c *core) heartbeat(h *fleet.Heartbeat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.Seq, h.Identity = c.applied.Load(), fleet.IdentityOf(c.model)
	if c.broken == nil {
		h.LogChain, h.StateChain = fleet.Chains(c.model)
	}
}

// describe fills in a status what the model says of itself. One that failed
// says what it had counted, and nothing of its components.
func (c *core) describe(s *fleet.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.DescribeScores(c.model)
	if s.Seq = c.applied.Load(); c.broken == nil {
		s.DescribeState(c.model)
	}
}

// reset goes on with another model: one that has learned nothing, or one that
// was restored.
func (c *core) reset(m *model.Model) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.model = m
	c.trail.log, c.trail.state = 0, 0
	c.trail.note(m)
	c.watch.reset(m)
	c.applied.Store(m.Seq())
}
