// Package serve answers the requests for a model, wherever they come from:
// predict, explain, teach, and status. Each is answered with a typed reply or
// a *Refusal. Over NATS, where a request comes to an endpoint, the endpoint
// encodes it; a caller in this process (see Predict, Explain and Teach) gets
// it as it is.
//
// An endpoint runs one handler at a time, so a handler never waits. A request
// that has to wait for a sequence is parked, and answered by the fold, by its
// time-out, or when the worker leaves the group.
package serve

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// Replica is what requests need of the replica that answers them. It is safe
// for concurrent use.
type Replica interface {
	// Lock returns the model, which is the caller's until Unlock, or nil if it
	// has failed and is not to be used. The fold waits meanwhile.
	Lock() *model.Model
	Unlock()
	// Applied is the last sequence that the replica has applied.
	Applied() uint64
	// OnLog reports whether the log still holds the message that was applied
	// last.
	OnLog(ctx context.Context) (bool, error)
	// Unready says why the replica does not answer, or is empty if it does.
	Unready() string
	// Describe fills in what the replica says of itself.
	Describe(*fleet.Status)
}

// Log is what requests need of the model's log. bus.Log is the real one. It is
// safe for concurrent use.
type Log interface {
	// Append stores a message and returns once it is acknowledged. It
	// retries under the same id until ctx ends.
	Append(ctx context.Context, subject, id string, data []byte, guards ...bus.Guard) (bus.Ack, error)
	// Limit is how many bytes a message may have.
	Limit() int
	// Message reads one message, or returns bus.ErrNoMessage.
	Message(ctx context.Context, seq uint64) (*bus.Message, error)
}

// Services is where a worker answers requests over NATS. bus.Doors is the real
// one.
type Services interface {
	// Open starts to serve endpoints as one service, until its Stop.
	Open(bus.ServiceConfig) (bus.Service, error)
	// Dropped is how many requests were lost because they came too fast.
	Dropped() int
}

// Config is what a server is made of.
type Config struct {
	Name    string // the replica's own, unique in the fleet
	Boot    string // a nonce of this process
	Stream  string // the log's, for replies
	Version string // the program's
	Spec    *model.Spec

	Log       Log
	Services  Services
	Predicted Counter
	Logger    *slog.Logger
}

// Limits of a server.
const (
	parkLimit      = 10_000           // requests that wait for a sequence
	parkBytes      = 16 << 20         // of their bodies
	defaultTimeout = 2 * time.Second  // of a request that waits
	maxTimeout     = 60 * time.Second // the most a request may ask for
	drainTimeout   = 5 * time.Second  // for what was accepted to be answered
)

// Server answers requests with one replica, which tells it when: it is the
// replica's Group.
type Server struct {
	cfg       Config
	log       *slog.Logger
	started   time.Time
	replica   Replica // set by Use
	parking   *parking
	predicted *predicted
	rows      sync.Pool // of *rowWork
	decoders  sync.Pool // of *model.Decoder, for lessons
	maxRow    int       // bytes of a request about a row
	labels    labels    // guarded by the replica's lock
	lessons   load      // the teaches that are not answered yet
	outcomes  outcomes  // that teaches wait for
	inside    inside    // requests that come from this process
	traffic   Traffic   // what came over NATS

	// Of the replica's owner, which calls Join and Leave.
	service bus.Service // the model's, nil when not joined
	group   *group      // of the teaches since the last join; set before any request comes
	giveUp  func()      // ends its appends
}

// New makes a server. It needs a replica before it answers; see Use.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, log: cfg.Logger.With("replica", cfg.Name), started: time.Now(),
		parking: &parking{limit: parkLimit, limitBytes: parkBytes}, maxRow: maxRow(cfg.Spec),
	}
	s.predicted = &predicted{counter: cfg.Predicted, boot: cfg.Boot, log: s.log}
	s.labels.begin(cfg.Spec.Label.Name)
	s.decoders.New = func() any { return model.NewDecoder(cfg.Spec) }
	s.rows.New = func() any { return &rowWork{decoder: model.NewDecoder(cfg.Spec)} }
	return s
}

// Use gives the server its replica. It is called once, before Join.
func (s *Server) Use(r Replica) { s.replica = r }

// Run counts predictions for the fleet until ctx ends, and then what is left.
func (s *Server) Run(ctx context.Context) { s.predicted.run(ctx) }

// Join enters the queue group.
func (s *Server) Join() error {
	appending, giveUp := context.WithCancel(context.Background())
	s.group, s.giveUp = &group{server: s, ctx: appending}, giveUp
	service, err := s.cfg.Services.Open(s.modelService())
	if err != nil {
		giveUp()
		return err
	}
	s.service = service
	s.inside.admit(true)
	return nil
}

// Leave leaves the group. What was accepted is answered by the fold while
// that goes on; what is left then, or once the parking is closed, gets a 503.
func (s *Server) Leave() {
	service := s.service
	if s.service = nil; service == nil {
		return
	}
	defer s.giveUp()
	s.inside.admit(false)
	stop := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := service.Stop(ctx); err != nil {
			return err
		}
		return s.inside.drain(ctx)
	}
	if stop(drainTimeout) == nil {
		return
	}
	s.parking.close()
	s.giveUp()
	if err := stop(time.Second); err != nil {
		s.log.Warn("some requests may be unanswered", "error", err)
		service.Close()
	}
}

// Open lets requests wait for sequences.
func (s *Server) Open(applied uint64) { s.parking.open(applied) }

// Close ends all requests that wait for a sequence; none can wait until Open.
func (s *Server) Close() { s.parking.close() }

// Applied takes in what the fold made of a message, and answers those that
// waited for it.
func (s *Server) Applied(e *model.Entry, result *model.Result) {
	s.outcomes.record(e.ID, result)
	s.parking.advance(result.Seq)
}

// modelService is what the fleet answers as one.
func (s *Server) modelService() bus.ServiceConfig {
	name := s.cfg.Spec.Name
	endpoint := func(verb string, handler func(bus.Request)) bus.Endpoint {
		return bus.Endpoint{
			Name: verb, Subject: name + "." + verb, Queue: "lockstep", Handler: handler, Answered: s.traffic.observer(verb),
		}
	}
	return bus.ServiceConfig{
		Name: name, Version: s.cfg.Version, Metadata: s.metadata(),
		Description: "predicts and learns " + s.cfg.Spec.Label.Name,
		Endpoints: []bus.Endpoint{
			endpoint("predict", s.predict),
			endpoint("teach", s.teach),
			endpoint("explain", s.explain),
		},
	}
}

// StatusService is what every replica answers for itself, whether it has
// joined or not.
func (s *Server) StatusService() bus.ServiceConfig {
	name := s.cfg.Spec.Name
	return bus.ServiceConfig{
		Name: name + "-replica", Version: s.cfg.Version, Metadata: s.metadata(),
		Description: "one replica of " + name,
		Endpoints: []bus.Endpoint{{
			Name: "status", Subject: name + ".status", Handler: s.status, Answered: s.traffic.observer("status"),
		}},
	}
}

func (s *Server) metadata() map[string]string {
	contract := s.cfg.Spec.Contract()
	return map[string]string{"replica": s.cfg.Name, "contract": fmt.Sprintf("%x", contract[:8])}
}

func (s *Server) status(req bus.Request) { s.respond(req, s.Status()) }

// Status is what the replica says of itself now, and of its requests.
func (s *Server) Status() fleet.Status {
	status := fleet.Status{
		Started: s.started.UTC().Truncate(time.Second), UptimeS: int64(time.Since(s.started).Seconds()),
		Predicted: s.predicted.value(), Uncounted: s.predicted.given(),
		Parked: s.parking.len(), Dropped: s.cfg.Services.Dropped(),
	}
	s.replica.Describe(&status)
	return status
}
