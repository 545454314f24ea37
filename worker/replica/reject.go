package replica

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/model"
)

const (
	// verdictAge is how long the fleet keeps a report. Older events are not
	// reported: replaying a long log would otherwise bring back what expired.
	verdictAge = 24 * time.Hour
	// maxUnreported bounds the reports that wait, in bytes. It is what their
	// stream takes in all: what waits behind that many would find it full.
	maxUnreported = 64 << 20
	// reporters is how many reports are on their way to the server at once.
	reporters = 8
	// lastReports is how long a replica that ends goes on reporting.
	lastReports = 2 * time.Second
)

// rejections reports rejected events without ever holding up the fold.
type rejections struct {
	verdicts Verdicts
	log      *slog.Logger

	mu      sync.Mutex
	more    sync.Cond // on mu: the queue has one more, or has ended
	queue   []rejection
	bytes   int  // of the queue's data
	ended   bool // nothing is waited for any more
	failing bool // the last report was not stored

	dropped atomic.Uint64 // not reported: the queue or the stream was full, or the server refused it
}

type rejection struct {
	subject string
	data    []byte
}

// report is what the verdict stream holds of a rejected event.
type report struct {
	Seq     uint64          `json:"seq"`
	Index   int             `json:"index"`
	Verdict string          `json:"verdict"`
	Detail  []model.Problem `json:"detail"`
}

func newRejections(verdicts Verdicts, log *slog.Logger) *rejections {
	r := &rejections{verdicts: verdicts, log: log}
	r.more.L = &r.mu
	return r
}

// add queues the report of each event of a message that was rejected.
func (r *rejections) add(name string, result *model.Result, chain [32]byte) {
	for i, o := range result.Outcomes {
		if o.Verdict != model.Rejected {
			continue
		}
		data, err := json.Marshal(report{result.Seq, i, o.Verdict.String(), o.Problems})
		if err != nil {
			r.log.Error("a rejection could not be written", "seq", result.Seq, "error", err)
			continue
		}
		r.push(
			rejection{fmt.Sprintf("%s.verdict.rejected.%d.%d.%s", name, result.Seq, i, hex.EncodeToString(chain[:4])), data},
		)
	}
}

// push queues a report, or drops it if the queue is full.
func (r *rejections) push(x rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes+len(x.data) > maxUnreported {
		r.dropped.Add(1)
		return
	}
	r.queue, r.bytes = append(r.queue, x), r.bytes+len(x.data)
	r.more.Signal()
}

// next waits for a report; false once the queue is empty and has ended.
func (r *rejections) next() (x rejection, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) == 0 {
		if r.ended {
			return rejection{}, false
		}
		r.more.Wait()
	}
	x = r.queue[0]
	r.queue[0], r.queue = rejection{}, r.queue[1:]
	if r.bytes -= len(x.data); len(r.queue) == 0 {
		r.queue = nil // a burst's memory is not kept
	}
	return x, true
}

// run puts the reports until ctx is done, and then for a while those that
// still wait.
func (r *rejections) run(ctx context.Context) {
	putting, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		r.end()
		time.AfterFunc(lastReports, stop)
	})()
	var all sync.WaitGroup
	for range reporters {
		all.Go(func() {
			for x, ok := r.next(); ok; x, ok = r.next() {
				r.put(putting, x)
			}
		})
	}
	all.Wait()
}

func (r *rejections) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.more.Broadcast()
}

// put stores a report. It logs the first failure of several, and their end.
func (r *rejections) put(ctx context.Context, x rejection) {
	_, err := r.verdicts.Put(ctx, x.subject, x.data)
	failed := err != nil
	if failed {
		r.dropped.Add(1)
	}
	r.mu.Lock()
	was := r.failing
	r.failing = failed
	r.mu.Unlock()
	switch {
	case failed && !was:
		r.log.Warn("a rejection could not be reported; more of them are counted", "subject", x.subject, "error", err)
	case !failed && was:
		r.log.Info("rejections are reported again", "unreported", r.dropped.Load())
	}
}
