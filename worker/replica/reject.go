package replica

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"lockstep/model"
)

// verdictAge is how long the fleet keeps a report. Older events are not
// reported: replaying a long log would otherwise bring back what had expired.
const verdictAge = 24 * time.Hour

// rejections reports rejected events without ever holding up the fold.
type rejections struct {
	verdicts Verdicts
	log      *slog.Logger
	queue    chan rejection
	dropped  atomic.Uint64 // not reported: the queue or the stream was full
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
	return &rejections{verdicts: verdicts, log: log, queue: make(chan rejection, 1024)}
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
		subject := fmt.Sprintf("%s.verdict.rejected.%d.%d.%s", name, result.Seq, i, hex.EncodeToString(chain[:4]))
		select {
		case r.queue <- rejection{subject, data}:
		default:
			r.dropped.Add(1)
		}
	}
}

// run puts the reports until ctx is done.
func (r *rejections) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-r.queue:
			if _, err := r.verdicts.Put(ctx, x.subject, x.data); err != nil && ctx.Err() == nil {
				r.dropped.Add(1)
				r.log.Warn("a rejection could not be reported", "subject", x.subject, "error", err)
			}
		}
	}
}
