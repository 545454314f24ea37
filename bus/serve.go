package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// ServiceConfig describes a service: one or more endpoints that come and go
// together.
type ServiceConfig struct {
	Name        string
	Version     string // semantic
	Description string
	Metadata    map[string]string
	Endpoints   []Endpoint
}

// Endpoint is a subject that is answered.
type Endpoint struct {
	Name    string
	Subject string
	Queue   string // group that shares the requests; empty: each instance answers
	// Handler is called with one request at a time, and must not wait. It may
	// answer later, from any goroutine, if it keeps the request; every request
	// must be answered.
	Handler func(Request)
	// Answered, if set, is told of each answer: an error's code or 0, and how
	// long it took since the request was taken.
	Answered func(code int, took time.Duration)
}

// Request is a request that was accepted. It is answered once; later answers
// are ignored.
type Request interface {
	// Keep is called by a handler before it passes the request on. One that was
	// not kept is another's once the handler returns.
	Keep()
	// Data is the request's body. It is the request's own.
	Data() []byte
	// Header is the first value of a header, or empty.
	Header(name string) string
	// HeaderNames are the names of all headers, in no order.
	HeaderNames() []string
	// Reply answers with a body, which is the caller's again afterwards.
	Reply(body []byte)
	// Error answers with an error: its code and description as micro's
	// headers, and a body.
	Error(code int, description string, body []byte)
}

// Service is a running service.
type Service interface {
	// Stop accepts no more requests, waits until every accepted one is
	// answered, and flushes the answers. It returns an error if ctx ends
	// first, and can then be called again.
	Stop(ctx context.Context) error
	// Close ends the service with whatever is left to answer.
	Close()
}

type request struct {
	msg      *nats.Msg
	service  *service
	endpoint *tracked
	began    time.Time
	answered atomic.Bool
	kept     bool // it goes on without the handler
}

// requests are those that no one uses now.
var requests = sync.Pool{New: func() any { return new(request) }}

// reset forgets a request that is over.
func (r *request) reset() {
	r.msg, r.service, r.endpoint = nil, nil, nil
	r.answered.Store(false)
}

func (r *request) Keep() { r.kept = true }

func (r *request) Data() []byte { return r.msg.Data }

func (r *request) Header(name string) string { return r.msg.Header.Get(name) }

func (r *request) HeaderNames() []string { return slices.Collect(maps.Keys(r.msg.Header)) }

func (r *request) Reply(body []byte) {
	if !r.answered.Swap(true) {
		r.endpoint.count(0, "", time.Since(r.began))
		r.send(nil, body)
	}
}

func (r *request) Error(code int, description string, body []byte) {
	if !r.answered.Swap(true) {
		r.endpoint.count(code, description, time.Since(r.began))
		r.send(nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {strconv.Itoa(code)}}, body)
	}
}

// inbox reports whether an answer to a subject goes to who asked. Who may only
// ask could otherwise have the service write, with its own rights, to the log
// or to JetStream's API.
func inbox(subject, served string) bool {
	own, _, _ := strings.Cut(served, ".")
	return !strings.HasPrefix(subject, "$") && subject != own && !strings.HasPrefix(subject, own+".")
}

func (r *request) send(header nats.Header, body []byte) {
	var err error
	switch subject := r.msg.Reply; {
	case subject == "": // no one asked for an answer
	case header == nil:
		err = r.service.conn.Publish(subject, body)
	default:
		err = r.service.conn.PublishMsg(&nats.Msg{Subject: subject, Header: header, Data: body})
	}
	r.sent(err)
}

// sent ends a request. An answer that is too large for the server is told to
// the one who asked; one that cannot be sent for another reason has no one
// left to tell: the connection is closed, or no one asked for one.
func (r *request) sent(err error) {
	if errors.Is(err, nats.ErrMaxPayload) {
		const description = "the answer is too large for the server's max_payload"
		_ = r.service.conn.PublishMsg(&nats.Msg{
			Subject: r.msg.Reply, Header: nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {"500"}},
			Data: ErrorBody(500, description, nil),
		})
	}
	r.service.inFlight.Done()
}

// ErrorBody is the body of an error's answer.
func ErrorBody(code int, description string, detail any) []byte {
	type wireError struct {
		Code        int    `json:"code"`
		Description string `json:"description"`
	}
	body, err := json.Marshal(struct {
		Error  wireError `json:"error"`
		Detail any       `json:"detail,omitempty"`
	}{wireError{code, description}, detail})
	if err != nil {
		panic(err) // codes, texts and problems always marshal
	}
	return body
}

type service struct {
	conn     *Conn
	board    *board
	subs     []*nats.Subscription
	inFlight sync.WaitGroup
	mu       sync.Mutex
	drained  bool // Stop was called; guarded by mu
}

// Doors opens services, each on a connection of its own like Conn: so requests
// do not queue behind a replay, and a service that is stopped leaves nothing
// behind. (A subscription that is drained while the connection is made again is
// told to the server again, and then dropped here alone: its share of the
// requests would go nowhere.)
type Doors struct{ Conn *Conn }

// Dropped is how many requests came faster than they were taken, and were
// lost unanswered.
func (d Doors) Dropped() int { return d.Conn.dropped() }

// Open starts to serve. Without a server now, the service is there as soon as
// there is one again.
func (d Doors) Open(config ServiceConfig) (Service, error) {
	conn, err := d.Conn.another(config.Name)
	if err != nil {
		return nil, err
	}
	return Serve(conn, config)
}

// Serve opens a service on a connection, which is the service's from then on.
func Serve(conn *Conn, config ServiceConfig) (_ Service, err error) {
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	s := &service{conn: conn, board: newBoard(&config)}
	// First, so that the last error is of an endpoint, if one is denied.
	if s.subs, err = s.board.serve(conn); err != nil {
		return nil, err
	}
	for _, e := range s.board.endpoints {
		sub, err := conn.subscribe(e.Subject, e.Queue, func(msg *nats.Msg) { s.handle(e, msg) })
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", e.Subject, err)
		}
		s.subs = append(s.subs, sub)
	}
	// Once the server knows the subscriptions, the service is in the group.
	// Without a server now it is so as soon as there is one again, and no one
	// waits for that: the connection says that it was lost.
	_ = conn.FlushTimeout(attemptTimeout)
	// A subscription that was denied is known by now, and by nothing else.
	denied := denial(conn.LastError())
	for _, e := range config.Endpoints {
		if denied != nil && denied.Subject == e.Subject {
			return nil, denied
		}
	}
	return s, nil
}

// subscribe subscribes, in a queue group if one is named.
func (c *Conn) subscribe(subject, queue string, handle nats.MsgHandler) (*nats.Subscription, error) {
	if queue == "" {
		return c.Subscribe(subject, handle)
	}
	return c.QueueSubscribe(subject, queue, handle)
}

// handle passes a request to its endpoint's handler.
func (s *service) handle(e *tracked, msg *nats.Msg) {
	waiting := s.conn.backlog.begin()
	defer s.conn.backlog.end()
	if msg.Reply != "" && !inbox(msg.Reply, e.Subject) {
		s.conn.first.config.notice(fmt.Sprintf(
			"a request on %s wants its answer at %s, where no client listens: it is passed over", e.Subject, msg.Reply,
		))
		return
	}
	s.inFlight.Add(1)
	r := requests.Get().(*request)
	r.msg, r.service, r.endpoint, r.began, r.kept = msg, s, e, time.Now(), false
	if waiting > maxBacklog {
		description := fmt.Sprintf("overloaded: %d requests wait for this worker; try again", waiting)
		r.Error(503, description, ErrorBody(503, description, nil))
	} else {
		e.Handler(r)
	}
	if !r.kept && r.answered.Load() {
		r.reset()
		requests.Put(r)
	}
}

// drain ends the subscriptions once what the server had sent to them was
// handled. It returns at once.
func (s *service) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drained {
		s.drained = true
		for _, sub := range s.subs {
			_ = sub.Drain() // one that is closed already needs none
		}
	}
}

func (s *service) Stop(ctx context.Context) error {
	s.drain()
	if !s.conn.IsConnected() {
		go func() { // what was answered goes out if there is a server again soon
			_ = s.conn.FlushTimeout(attemptTimeout)
			s.conn.Close()
		}()
		return nil
	}
	for s.conn.NumSubscriptions() > 0 && !s.conn.IsClosed() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("subscriptions still draining: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	answered := make(chan struct{})
	go func() { s.inFlight.Wait(); close(answered) }()
	select {
	case <-ctx.Done():
		return fmt.Errorf("requests still unanswered: %w", ctx.Err())
	case <-answered:
	}
	defer s.conn.Close()
	return s.conn.FlushTimeout(attemptTimeout)
}

func (s *service) Close() { s.conn.Close() }

// RemoteError is an error that a service answered with.
type RemoteError struct {
	Code        int
	Description string
	Body        []byte
}

func (e *RemoteError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.Code) }

// ErrNobody is returned when no worker answers on a subject.
var ErrNobody = errors.New("no worker answers")

// askTimeout bounds a request whose context does not.
const askTimeout = time.Minute

// Ask asks a service, and returns its answer, or *RemoteError.
func Ask(ctx context.Context, conn *Conn, subject string, data []byte, header nats.Header) (*nats.Msg, error) {
	var answer *nats.Msg
	err := conn.do(ctx, subject, askTimeout, func(ctx context.Context) (err error) {
		answer, err = conn.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Data: data, Header: header})
		return err
	})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w on %s: start one with lockstep worker, or see lockstep status", ErrNobody, subject)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	if text := answer.Header.Get(micro.ErrorCodeHeader); text != "" {
		code, _ := strconv.Atoi(text) // a code that is no number is an error all the same
		return nil, &RemoteError{code, answer.Header.Get(micro.ErrorHeader), answer.Data}
	}
	return answer, nil
}

// Gather asks all instances of an endpoint, and collects the answers that
// come within a time.
func Gather(ctx context.Context, conn *Conn, subject string, data []byte, within time.Duration) ([]*nats.Msg, error) {
	inbox := conn.NewInbox()
	sub, err := conn.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	var answers []*nats.Msg
	err = conn.do(ctx, subject, within, func(ctx context.Context) error {
		if err := conn.PublishRequest(subject, inbox, data); err != nil {
			return err
		}
		for {
			answer, err := sub.NextMsgWithContext(ctx)
			if err != nil {
				return err
			}
			answers = append(answers, answer)
		}
	})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w on %s: start one with lockstep worker", ErrNobody, subject)
	case !errors.Is(err, context.DeadlineExceeded):
		return nil, err
	case len(answers) == 0:
		return nil, fmt.Errorf("%w on %s within %s", ErrNobody, subject, within)
	}
	return answers, nil
}
