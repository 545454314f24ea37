package bus

import (
	"sync/atomic"
	"time"
)

// maxBacklog is how many requests wait for their handler before more are
// refused. The client library holds some 500,000, or 64 MiB, and drops the
// rest in silence.
const maxBacklog = 8192

// backlogIdle: handlers that had nothing to do for so long had nothing
// waiting.
const backlogIdle = time.Millisecond

// backlog tells how many of the messages that arrived on a connection were
// not handled yet. The client library does not say, but it counts what
// arrives. Some of that is handled elsewhere (micro's own PING, INFO and
// STATS), so the count starts again whenever the handlers were idle.
type backlog struct {
	arrived func() uint64        // on the connection, ever
	clock   func() time.Duration // since some moment

	taken   atomic.Int64 // by handlers
	other   atomic.Int64 // arrived and not for a handler
	running atomic.Int32 // handlers
	ended   atomic.Int64 // when the last handler was done, by clock
}

func newBacklog(arrived func() uint64) *backlog {
	began := time.Now()
	return &backlog{arrived: arrived, clock: func() time.Duration { return time.Since(began) }}
}

// begin is called when a handler has taken a message. It returns how many
// wait behind it.
func (b *backlog) begin() int64 {
	alone := b.running.Add(1) == 1
	rest := int64(b.arrived()) - b.taken.Add(1)
	waiting := rest - b.other.Load()
	if waiting < 0 || alone && b.clock()-time.Duration(b.ended.Load()) > backlogIdle {
		b.other.Store(rest)
		return 0
	}
	return waiting
}

// end is called when that handler is done.
func (b *backlog) end() {
	b.ended.Store(int64(b.clock()))
	b.running.Add(-1)
}
