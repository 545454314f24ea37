// Package broker is the embedded nats-server: the one that lockstep demo runs
// and that tests run against.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

// Config describes a server.
type Config struct {
	Port     int    // of clients on 127.0.0.1; 0 takes a free one
	StoreDir string // its JetStream's files; one server at a time
	Name     string // shown to clients; empty: a random one
	// Lazy: messages are not synced before they are acknowledged. For
	// measurements of something else.
	Lazy bool
	// Denied are subjects that clients may neither publish nor subscribe to,
	// for tests of what a missing right looks like.
	Denied []string
}

// ErrLocked is returned when another process has a server on the store.
var ErrLocked = errors.New("the store is in use")

// PortError is returned when the port is taken.
type PortError struct{ Port int }

func (e *PortError) Error() string { return fmt.Sprintf("port %d is taken", e.Port) }

// Server is a running nats-server.
type Server struct {
	server *server.Server
	lock   *flock.Flock
}

const host = "127.0.0.1"

// Start starts a server and returns once it takes connections. JetStream
// syncs every message to disk before it acknowledges it.
func Start(ctx context.Context, config Config) (*Server, error) {
	lock, err := lockStore(config.StoreDir)
	if err != nil {
		return nil, err
	}
	s, err := start(ctx, config)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return &Server{s, lock}, nil
}

// ErrForeign is returned when a directory holds what another server stored.
var ErrForeign = errors.New("the directory holds another server's data")

// lockStore takes the store: two servers on one directory would both start,
// and one that was not started here has no lock to show that it runs.
func lockStore(dir string) (*flock.Flock, error) {
	if exists(filepath.Join(dir, "jetstream")) && !exists(filepath.Join(dir, "lock")) {
		return nil, fmt.Errorf(
			"%w: %s has a jetstream folder that was not made here; choose another directory", ErrForeign, dir,
		)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	switch locked, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("store: %w", err)
	case !locked:
		return nil, fmt.Errorf(
			"%w: another process has a server on %s; stop it, or choose another directory", ErrLocked, dir,
		)
	}
	return lock, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func start(ctx context.Context, config Config) (*server.Server, error) {
	if err := portFree(config.Port); err != nil {
		return nil, err
	}
	port := config.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	options := &server.Options{
		ServerName: config.Name,
		Host:       host,
		Port:       port,
		NoSigs:     true,
		JetStream:  true,
		StoreDir:   config.StoreDir,
		SyncAlways: !config.Lazy,
	}
	if len(config.Denied) > 0 {
		deny := &server.SubjectPermission{Deny: config.Denied}
		options.NoAuthUser = "anyone"
		options.Users = []*server.User{
			{Username: "anyone", Permissions: &server.Permissions{Publish: deny, Subscribe: deny}},
		}
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	// The server reports what stops its start to its logger alone.
	fatal := newCapture()
	s.SetLoggerV2(fatal, false, false, false)
	go s.Start()
	if err := ready(ctx, s, fatal); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	return s, nil
}

// portFree tells a taken port from other failures, before the server tries.
func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return &PortError{port}
	}
	return l.Close()
}

func ready(ctx context.Context, s *server.Server, fatal *capture) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !s.ReadyForConnections(10 * time.Millisecond) {
		select {
		case err := <-fatal.first:
			return fmt.Errorf("nats-server: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("nats-server did not start: %w", ctx.Err())
		default:
		}
	}
	return nil
}

// ClientURL is where clients connect.
func (s *Server) ClientURL() string { return s.server.ClientURL() }

// Shutdown stops the server, waits until its files are closed, and frees the
// store.
func (s *Server) Shutdown() error {
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return s.lock.Unlock()
}

// capture is a server's logger that keeps the first error that stops it.
type capture struct {
	once  sync.Once
	first chan error
}

func newCapture() *capture { return &capture{first: make(chan error, 1)} }

func (c *capture) Fatalf(format string, args ...any) {
	c.once.Do(func() { c.first <- fmt.Errorf(format, args...) })
}
func (*capture) Noticef(string, ...any) {}
func (*capture) Warnf(string, ...any)   {}
func (*capture) Errorf(string, ...any)  {}
func (*capture) Debugf(string, ...any)  {}
func (*capture) Tracef(string, ...any)  {}

// Erase deletes what a server has stored in a directory, and nothing else
// that is there.
func Erase(storeDir string) error {
	lock, err := lockStore(storeDir)
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(filepath.Join(storeDir, "jetstream")), lock.Unlock())
}

// Port is where clients connect on 127.0.0.1.
func (s *Server) Port() int { return s.server.Addr().(*net.TCPAddr).Port }
