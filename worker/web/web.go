// Package web is a worker's door for people: HTTP with the bodies of the
// FastAPI app that Lockstep replaces, metrics, health, and the live page.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"lockstep/worker"
	"lockstep/worker/replica"
	"lockstep/worker/serve"
)

// Config says where the door is and who may use it.
type Config struct {
	Addr    string // host:port; an empty host is 127.0.0.1, port 0 a free one
	Token   string // if set, requests carry it as Authorization: Bearer
	TLSCert string // if set with TLSKey, PEM files: the door speaks TLS
	TLSKey  string
	Version string // the program's
	// DrainDelay is how long the listener goes on answering after the worker
	// was asked to stop, while /readyz says 503: the time that load balancers
	// take to notice. 0 closes it at once.
	DrainDelay time.Duration
	Logger     *slog.Logger
}

// Limits of the door.
const (
	maxConns      = 4096             // connections; more wait to be taken
	maxInFlight   = 1024             // requests at once; more get a 503
	headerTimeout = 10 * time.Second // for a client to send its headers
	bodyTimeout   = 30 * time.Second // and its body, or the next line of it
	writeTimeout  = 90 * time.Second // for an answer, or a part of a stream, which sets its own deadlines
	idleTimeout   = 2 * time.Minute
	drainTimeout  = 5 * time.Second // for what was accepted to be answered
)

// Server is the HTTP door of one worker. It listens before the worker has
// reached NATS, and says so until then.
type Server struct {
	cfg      Config
	log      *slog.Logger
	handler  http.Handler
	worker   atomic.Pointer[served]
	inFlight atomic.Int64
	metrics  *metrics

	maxInFlight int64                                // as above; tests have others
	bodyTimeout time.Duration                        // likewise
	after       func(time.Duration) <-chan time.Time // time.After; tests have another

	draining  atomic.Bool   // the worker was asked to stop; the listener goes on for a while
	closing   chan struct{} // closed when the door closes: streams end
	closeOnce sync.Once
	listener  net.Listener // set by Listen
	addr      string       // its own, likewise
	local     bool         // it is for this machine alone, likewise
	last      atomic.Pointer[named]
	tls       *tls.Config
}

// served is the worker that answers, and what follows from its spec.
type served struct {
	*replica.Replica
	server  *serve.Server
	openapi []byte
}

// New makes a door. It returns an error if the address or the certificate is
// no good.
func New(cfg Config) (*Server, error) {
	host, port, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("the HTTP address %q: %w; give HOST:PORT, as in 127.0.0.1:8080 or :8080", cfg.Addr, err)
	}
	if host == "" {
		cfg.Addr = net.JoinHostPort("127.0.0.1", port)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, maxInFlight: maxInFlight, bodyTimeout: bodyTimeout,
		after: time.After, closing: make(chan struct{})}
	if cfg.TLSCert != "" || cfg.TLSKey != "" {
		pair, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("the HTTP door's certificate: %w", err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	}
	s.metrics = newMetrics(s)
	s.handler = s.routes()
	return s, nil
}

// Attach gives the door its worker. Until then only /healthz answers.
func (s *Server) Attach(w *worker.Worker) {
	s.worker.Store(&served{w.Replica, w.Server, openapi(w.Replica.Spec(), s.cfg.Version)})
}

// Handler is the door without its listener.
func (s *Server) Handler() http.Handler { return s.handler }

// Closing is closed when the door begins to close: streams are to end.
func (s *Server) Closing() <-chan struct{} { return s.closing }

// Listen takes the address. Run does it if it was not done before.
func (s *Server) Listen() error {
	l, err := net.Listen("tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("the HTTP door: %w", err)
	}
	s.listener, s.addr = l, l.Addr().String()
	addr, err := netip.ParseAddrPort(s.addr)
	s.local = err == nil && addr.Addr().IsLoopback()
	return nil
}

// Addr is where the door listens, as host:port.
func (s *Server) Addr() string {
	if s.listener == nil {
		return s.cfg.Addr
	}
	return s.addr
}

// URL is where people find the door.
func (s *Server) URL() string {
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + s.Addr()
}

// Run serves until ctx ends, answers what it has accepted, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	if s.cfg.Token == "" && !s.local {
		s.log.Warn(
			"the HTTP door has no authentication: whoever reaches it can teach the model; give it --http-token, or put it "+
				"behind a proxy that asks",
			"addr", s.Addr(),
		)
	}
	server := &http.Server{
		Handler: s.handler, TLSConfig: s.tls, ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // of clients that go away, mostly
	}
	server.RegisterOnShutdown(s.close)
	listener := netutil.LimitListener(s.listener, maxConns)
	if s.tls != nil {
		listener = tls.NewListener(listener, s.tls)
	}
	s.log.Info("the HTTP door is open", "url", s.URL())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("the HTTP door: %w", err)
	case <-ctx.Done():
	}
	s.close()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(last)
	if err != nil {
		s.log.Warn("some HTTP requests may be unanswered", "error", err)
		err = server.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		return served
	}
	return err
}

func (s *Server) close() { s.closeOnce.Do(func() { close(s.closing) }) }

// Serve runs a worker and its HTTP listener until ctx ends. Then it stops them
// in an order that loses no request: the listener goes on for its drain delay,
// and so does the worker, also over NATS; the listener closes, and what it has
// accepted is answered; the worker drains and stops.
func Serve(ctx context.Context, config worker.JoinConfig, door *Server) error {
	config.Attach = door.Attach
	working, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorker()
	open, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoor()
	defer context.AfterFunc(ctx, func() {
		door.drain(open)
		closeDoor()
	})()
	closed := make(chan error, 1)
	go func() {
		closed <- door.Run(open)
		stopWorker()
	}()
	err := worker.Serve(working, config)
	closeDoor() // a worker that has failed has nothing left to answer
	return errors.Join(err, <-closed)
}

// drain says on /readyz that this worker stops, and returns after the drain
// delay, or when ctx ends.
func (s *Server) drain(ctx context.Context) {
	s.draining.Store(true)
	if s.cfg.DrainDelay <= 0 {
		return
	}
	s.log.Info("stopping: requests are answered until the drain delay is over", "delay", s.cfg.DrainDelay.String())
	select {
	case <-s.after(s.cfg.DrainDelay):
	case <-ctx.Done():
	}
}
