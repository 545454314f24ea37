package bus

import (
	"time"
)

// Limits of what is on its way to a tail.
const (
	firstBudget = 512 << 10 // bytes; a pipe that runs dry gets more
	maxBudget   = 16 << 20  // a server cuts a client off that has 64 MiB waiting
	maxHeavy    = 48 << 20  // more than that is never waited for
	heavyRun    = 4         // messages in a row that forebode it
	minWindow   = 2         // messages, so that the next is on its way while one is read
	maxWindow   = 1 << 16

	guessBytes = 16 << 10 // of a message, before any was seen
	guessCount = 8        // how many messages the guess stands for
	meanOver   = 256      // messages, about
)

// window is how many messages a tail has on their way at a time: a budget of
// bytes, in messages of their mean size. (A request can state bytes, too, and
// is answered five times slower then.)
//
// A pipe carries at most a window in each round trip. One that runs dry, where
// the server has more to send and waits for the next request, gets twice the
// budget, once in a round trip; one that is full, or whose reader is slower
// than the server, keeps what it has. So the budget ends below four times what
// the bandwidth and the round trip need, and what else is asked on the same
// connection waits behind no more than that.
//
// One goroutine uses it.
type window struct {
	budget int     // bytes
	mean   float64 // bytes of a message
	seen   int     // messages in the mean, at most meanOver
	heavy  int     // messages in a row of which too many are on their way
}

func newWindow() *window {
	return &window{budget: firstBudget, mean: guessBytes, seen: guessCount}
}

// size is the window in messages.
func (w *window) size() int {
	return min(max(int(float64(w.budget)/w.mean), minWindow), maxWindow)
}

// took takes in the size of a message that came, with so many more on their
// way. It reports whether those may be too much for the server to hold: the
// messages were small when they were asked for.
func (w *window) took(bytes, onTheirWay int) (tooMuch bool) {
	w.seen = min(w.seen+1, meanOver)
	w.mean += (float64(bytes) - w.mean) / float64(w.seen)
	if bytes*onTheirWay <= maxHeavy {
		w.heavy = 0
		return false
	}
	if w.heavy++; w.heavy < heavyRun {
		return false // a few large ones among small ones do no harm
	}
	w.heavy, w.mean = 0, float64(bytes)
	return true
}

// grow is called when the pipe has run dry.
func (w *window) grow() { w.budget = min(4*w.budget, maxBudget) }

// flow watches whether the pipe runs dry. Requests are answered in their
// order: where the server had nothing asked for any more, the wait is for the
// first message of a request.
type flow struct {
	ends  []uint64      // the numbers of the last messages of the requests under way, ascending
	round uint64        // the number of the message that ends the round
	began time.Time     // the round
	dry   time.Duration // waited in the round
	now   func() time.Time
}

// asked is called with the number of the last message that is asked for.
func (f *flow) asked(last uint64) {
	f.ends = append(f.ends, last)
}

// expired is called when a request was not answered in full.
func (f *flow) expired() { f.ends = f.ends[:0] }

// atEnd reports whether the message that came last was the last that the
// server had been asked for, as far as is known.
func (f *flow) atEnd(came uint64) bool {
	for len(f.ends) > 0 && f.ends[0] < came {
		f.ends = f.ends[1:]
	}
	return len(f.ends) > 0 && f.ends[0] == came
}

// waited is called after a wait for the first message of a request, of which
// the server has had more all the time.
func (f *flow) waited(d time.Duration) { f.dry += d }

// turn is called with the number of the message that came last, and of the
// last that is asked for. A round lasts until a message comes that was asked
// for after the round's beginning: a round trip, or as long as a full pipe
// takes. It reports whether the pipe was dry for a quarter of a round that is
// over.
func (f *flow) turn(came, asked uint64) (dry bool) {
	if came <= f.round {
		return false
	}
	now := f.now()
	dry = !f.began.IsZero() && f.dry > now.Sub(f.began)/4
	f.round, f.began, f.dry = asked, now, 0
	return dry
}

// While somebody publishes, a tail that is behind is polite: it takes no more
// of the server's time than so many messages need, and leaves gaps in which
// others are served. Unbounded readers make an acknowledgement wait fifty
// times as long (four of them on two cores).
const (
	politeRate  = 33_000      // messages per second, beside what is published meanwhile
	politeBytes = 64 << 20    // per second
	politeBatch = 250         // messages of one request
	politeQuiet = time.Second // without a publish: no one publishes
	politeBurst = 5 * time.Millisecond
	growthEvery = 100 * time.Millisecond
)

// pace bounds how much is asked for in a time while somebody publishes.
type pace struct {
	end    uint64    // of the log, when the last message was sent
	grew   time.Time // when that was last seen to move, by somebody's publish
	due    time.Time // of the next request
	growth float64   // messages per second that are published

	since    time.Time // of the present measurement of the growth
	sinceEnd uint64    // the end then

	now func() time.Time
}

// came takes in where the log ended when a message was sent.
func (p *pace) came(end uint64) {
	if end == p.end {
		return
	}
	at := p.now()
	if p.end > 0 {
		p.grew = at
	}
	p.end = end
	switch took := at.Sub(p.since); {
	case p.since.IsZero() || end < p.sinceEnd || took > politeQuiet:
		p.growth = 0
	case took < growthEvery:
		return
	default:
		p.growth = (p.growth + float64(end-p.sinceEnd)/took.Seconds()) / 2
	}
	p.since, p.sinceEnd = at, end
}

// polite reports whether somebody publishes.
func (p *pace) polite(now time.Time) bool { return !p.grew.IsZero() && now.Sub(p.grew) < politeQuiet }

// asked takes in that messages are asked for, of so many bytes each.
func (p *pace) asked(messages int, mean float64, now time.Time) {
	rate := politeRate + 2*p.growth
	rate = min(rate, politeBytes/mean+2*p.growth)
	if earliest := now.Add(-politeBurst); p.due.Before(earliest) {
		p.due = earliest
	}
	p.due = p.due.Add(time.Duration(float64(messages) / rate * float64(time.Second)))
}
