// Package farlink makes a server on this machine a distant one, for tests and
// benchmarks: a TCP proxy that holds back what passes in each direction for
// half a round trip.
package farlink

import (
	"net"
	"sync"
	"time"
)

// Config describes a link.
type Config struct {
	Target string // host:port of the server
	// RoundTrip is how long a byte and its answer take longer than without the
	// link.
	RoundTrip time.Duration
	// BytesPerSecond is the bandwidth of each connection in each direction; 0 is
	// as much as this machine gives. What does not fit stays with its sender.
	BytesPerSecond int
}

const (
	pieceBytes = 32 << 10 // most bytes that are read at a time
	freeFlight = 64 << 20 // most bytes on their way where the bandwidth is free
)

// Link is a running link. Its methods may be called from any goroutine.
type Link struct {
	config   Config
	listener net.Listener
	all      sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool // both ends of each connection; guarded by mu
	closed bool              // guarded by mu
}

// Open starts a link on a port of its own on 127.0.0.1.
func Open(config Config) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{config: config, listener: listener, conns: map[net.Conn]bool{}}
	l.all.Go(l.accept)
	return l, nil
}

// Addr is where to connect instead of the target: host:port.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Cut breaks every connection; new ones are accepted.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns { // order: each is closed
		conn.Close()
	}
}

// Close ends the link, and returns once nothing of it runs any more.
func (l *Link) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.listener.Close()
	l.Cut()
	l.all.Wait()
	return err
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		far, err := net.Dial("tcp", l.config.Target)
		if err != nil || !l.add(near, far) {
			near.Close()
			if err == nil {
				far.Close()
			}
			continue
		}
		l.all.Go(func() {
			defer l.remove(near, far)
			var both sync.WaitGroup
			both.Go(func() { l.carry(far, near); far.Close(); near.Close() })
			both.Go(func() { l.carry(near, far); far.Close(); near.Close() })
			both.Wait()
		})
	}
}

// add keeps both ends of a connection, unless the link is closed.
func (l *Link) add(near, far net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.conns[near], l.conns[far] = true, true
	}
	return !l.closed
}

func (l *Link) remove(near, far net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, near)
	delete(l.conns, far)
}

// piece is what was read at once, and when it is to arrive.
type piece struct {
	data []byte
	due  time.Time
}

// carry takes bytes from one end to the other until either fails. What is on
// its way then still arrives.
func (l *Link) carry(to, from net.Conn) {
	inFlight := freeFlight
	if rate := l.config.BytesPerSecond; rate > 0 {
		inFlight = max(int(l.config.RoundTrip.Seconds()/2*float64(rate)), 2*pieceBytes)
	}
	pieces := make(chan piece, max(inFlight/pieceBytes, 1))
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(pieces)
		for {
			data := make([]byte, pieceBytes)
			n, err := from.Read(data)
			if n > 0 {
				pieces <- piece{data[:n], time.Now().Add(l.config.RoundTrip / 2)}
			}
			if err != nil {
				return
			}
		}
	})
	free := time.Now() // when the link has room again
	failed := false
	for p := range pieces { // all of it, so that the reader can end
		if failed {
			continue
		}
		due := p.due
		if rate := l.config.BytesPerSecond; rate > 0 {
			if due.Before(free) {
				due = free
			}
			free = due.Add(time.Duration(float64(len(p.data)) / float64(rate) * float64(time.Second)))
		}
		time.Sleep(time.Until(due))
		if _, err := to.Write(p.data); err != nil {
			failed = true
			from.Close()
		}
	}
	reading.Wait()
}
