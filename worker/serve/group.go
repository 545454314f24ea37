package serve

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// Limits of a group.
const (
	maxGroup      = 256       // events: the fold holds the replica for all of them
	maxGroupBytes = 256 << 10 // of its message, and half of what the log takes
)

// group commits teaches in groups. A server that syncs each message stores as
// many a second however many clients there are; so the teaches that come while
// one message is on its way wait, and go together in the next. One message is
// on its way at most: two store no faster, and groups would be half as large.
// A lone teach does not wait.
//
// Only teaches of one event, without an id and without guards, are grouped. An
// event's id is made of its message's, and a guard is the message's own.
type group struct {
	server *Server
	ctx    context.Context // of its appends; ended by the worker

	mu      sync.Mutex
	waiting []*lesson // in the order in which they came; guarded by mu
	sending bool      // a message is on its way; guarded by mu
}

// takes reports whether a lesson may share a message with others. As an
// element of an array its JSON is one deeper.
func (g *group) takes(l *lesson) bool {
	deep := bytes.Count(l.data, []byte("{"))+bytes.Count(l.data, []byte("[")) >= model.MaxDepth
	return !l.named && !l.batch && len(l.guards) == 0 && !deep
}

// add sends a lesson, at once if no message is on its way. It returns once
// nothing more waits, if it was the one who sends.
func (g *group) add(l *lesson) {
	g.mu.Lock()
	g.waiting = append(g.waiting, l)
	l.timer = time.AfterFunc(time.Until(l.deadline), func() { g.expire(l) })
	first := !g.sending
	g.sending = true
	g.mu.Unlock()
	if !first {
		return
	}
	for next := g.next(); len(next) > 0; next = g.next() {
		g.server.publish(newParcel(g.ctx, next...))
	}
}

// next takes the lessons of the next message. There are none once nothing
// waits, and then no message is on its way.
func (g *group) next() []*lesson {
	limit := min(maxGroupBytes, g.server.cfg.Log.Limit()/2)
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, len("[")
	for n < min(len(g.waiting), maxGroup) {
		if size += len(g.waiting[n].data) + len(","); size > limit && n > 0 {
			break
		}
		n++
	}
	next := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	g.sending = n > 0
	return next
}

// expire answers a lesson whose patience ended before its message was
// acknowledged.
func (g *group) expire(l *lesson) {
	g.mu.Lock()
	i := slices.Index(g.waiting, l)
	if i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // its message is on its way, and anyone who sent that ends the lesson
		refusef(l.req, 504, "the event was not acknowledged in time; it may be stored all the same: "+repeatUnnamed)
		return
	}
	defer g.server.release(l)
	refusef(l.req, 504, "the event is not stored: the log acknowledges nothing; try again")
}

const repeatUnnamed = "sent again, it may be learned twice; with a Nats-Msg-Id it can be sent again safely"

// stop ends a lesson's timer.
func (l *lesson) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

// parcel is a message on its way to the log.
type parcel struct {
	ctx     context.Context // see group
	id      string
	data    []byte
	guards  []bus.Guard
	lessons []*lesson // one, or a group of one event each
	events  int
	awaited *awaited     // what the fold makes of it
	left    atomic.Int32 // lessons that are not answered
}

// newParcel makes the message of one lesson, or of a group. One that has no id
// gets one, so that our own retry learns nothing twice.
func newParcel(ctx context.Context, lessons ...*lesson) *parcel {
	l := lessons[0]
	p := &parcel{ctx: ctx, id: l.id, data: l.data, guards: l.guards, lessons: lessons, events: len(l.events)}
	if !l.named {
		p.id = bus.NewID()
	}
	p.left.Store(int32(len(lessons)))
	if len(lessons) == 1 {
		l.stop() // the message's patience is its own
	} else {
		p.data, p.events = []byte{'['}, len(lessons)
		for _, l := range lessons {
			p.data = append(append(p.data, l.data...), ',')
		}
		p.data[len(p.data)-1] = ']'
	}
	for i, l := range lessons {
		l.id, l.first = p.id, i
	}
	return p
}

// deadline is when the last of the lessons gives up.
func (p *parcel) deadline() time.Time {
	last := p.lessons[0].deadline
	for _, l := range p.lessons {
		if l.deadline.After(last) {
			last = l.deadline
		}
	}
	return last
}

// again says how what may be stored can be sent again.
func (p *parcel) again() string {
	if len(p.lessons) > 1 {
		return repeatUnnamed
	}
	return fmt.Sprintf("ask again with the same Nats-Msg-Id (%s)", p.id)
}

// own is what the fold said of a lesson's events as it would have said it of
// the lesson alone: without the index that its problems have in a group. What
// the fold said is no one's else, and is changed where it stands.
func (p *parcel) own(outcomes []model.Outcome) []model.Outcome {
	if len(p.lessons) > 1 {
		for i := range outcomes {
			for j := range outcomes[i].Problems {
				problem := &outcomes[i].Problems[j]
				problem.Loc = problem.Loc[1:]
			}
		}
	}
	return outcomes
}
