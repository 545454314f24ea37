package serve

import (
	"context"
	"fmt"
	"sync"

	"lockstep/bus"
)

// Request is a request from this process, as the HTTP listener's.
type Request struct {
	Data   []byte              // the body; not to be changed until the answer
	Header func(string) string // the first value of a header, or empty; nil if there are none
	Names  func() []string     // of all headers; nil if there are none
}

// Predict answers with the label of a row, by the very handler that answers
// over NATS. It returns a *Refusal if there is no prediction, or ctx's error
// if that ends first; then Data may still be read. Explain and Teach do the
// same.
func (s *Server) Predict(ctx context.Context, r Request) (Prediction, error) {
	c := &call{Request: r, inside: &s.inside}
	if _, err := s.call(ctx, c, s.predict); err != nil {
		return Prediction{}, err
	}
	return c.prediction, nil
}

// Explain explains a prediction; see Predict.
func (s *Server) Explain(ctx context.Context, r Request) (*Explanation, error) {
	reply, err := s.call(ctx, &call{Request: r, inside: &s.inside}, s.explain)
	if err != nil {
		return nil, err
	}
	return reply.(*Explanation), nil
}

// Teach learns an event, or a batch of them; see Predict.
func (s *Server) Teach(ctx context.Context, r Request) (*Taught, error) {
	reply, err := s.call(ctx, &call{Request: r, inside: &s.inside}, s.teach)
	if err != nil {
		return nil, err
	}
	return reply.(*Taught), nil
}

// call has a handler answer a request, and waits for that.
func (s *Server) call(ctx context.Context, c *call, handler func(bus.Request)) (reply any, err error) {
	if !s.inside.enter() {
		return nil, &Refusal{Code: 503, Description: "this replica does not serve now: " + s.replica.Unready()}
	}
	handler(c)
	if answered := c.wait(); answered != nil { // it is not answered at once, as most are
		select {
		case <-answered:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c.refusal != nil {
		return nil, c.refusal
	}
	return c.reply, nil
}

// call is a Request as the handlers read it. It is answered once; later
// answers are ignored.
type call struct {
	Request
	inside     *inside
	prediction Prediction // the reply to a predict, which is not allocated; as reply

	mu       sync.Mutex
	answered bool          // guarded by mu
	reply    any           // guarded by mu until answered, then constant
	refusal  *Refusal      // likewise; nil for a reply
	done     chan struct{} // closed once answered; nil while no one waits; guarded by mu
}

// wait returns what is closed once the call is answered; nil if it is.
func (c *call) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered {
		return nil
	}
	c.done = make(chan struct{})
	return c.done
}

func (c *call) end(reply any, refusal *Refusal) {
	c.mu.Lock()
	if c.answered {
		c.mu.Unlock()
		return
	}
	c.answered, c.reply, c.refusal = true, reply, refusal
	if c.done != nil {
		close(c.done)
	}
	c.mu.Unlock()
	c.inside.exit()
}

// The methods of bus.Request.

func (c *call) Keep() {} // it is its caller's own

func (c *call) Data() []byte { return c.Request.Data }

func (c *call) Header(name string) string {
	if c.Request.Header == nil {
		return ""
	}
	return c.Request.Header(name)
}

func (c *call) HeaderNames() []string {
	if c.Request.Names == nil {
		return nil
	}
	return c.Request.Names()
}

// Reply and Error are not called: refuse and respond know a call.

func (c *call) Reply([]byte) { panic("an encoded reply to a call") }

func (c *call) Error(int, string, []byte) { panic("an encoded refusal of a call") }

// inside counts the requests from this process: they are let in while the
// replica is in the group, and anyone who leaves it answers them first.
type inside struct {
	mu       sync.Mutex
	open     bool          // guarded by mu
	inFlight int           // guarded by mu
	idle     chan struct{} // closed when nothing is in flight; nil while no one waits; guarded by mu
}

func (i *inside) enter() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.open {
		i.inFlight++
	}
	return i.open
}

func (i *inside) exit() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.inFlight--; i.inFlight == 0 && i.idle != nil {
		close(i.idle)
		i.idle = nil
	}
}

// admit lets requests in, or not. What was let in goes on.
func (i *inside) admit(open bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.open = open
}

// drain waits until nothing is in flight, or returns ctx's error.
func (i *inside) drain(ctx context.Context) error {
	i.mu.Lock()
	if i.inFlight == 0 {
		i.mu.Unlock()
		return nil
	}
	if i.idle == nil {
		i.idle = make(chan struct{})
	}
	idle := i.idle
	i.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("requests of this process still unanswered: %w", ctx.Err())
	}
}
