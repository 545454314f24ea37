package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// taught is the reply to a teach: a superset of JetStream's PubAck, so that
// every client's JetStream publish understands it.
type taught struct {
	Stream    string `json:"stream"`
	Seq       uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate,omitempty"`
	Status    string `json:"status"`
	Predicted int64  `json:"predicted"`
	Learned   uint64 `json:"learned"`
	Receipt   string `json:"receipt"`

	Results []taughtEvent `json:"results,omitempty"` // a batch's, in order
}

// taughtEvent is what the fold said of one event of a batch.
type taughtEvent struct {
	Seq       uint64          `json:"seq"`
	Duplicate bool            `json:"duplicate,omitempty"`
	Status    string          `json:"status"`
	Learned   uint64          `json:"learned,omitempty"`
	Detail    []model.Problem `json:"detail,omitempty"` // why it was rejected
}

// lesson is one teach request until its answer.
type lesson struct {
	req    bus.Request
	id     string
	data   []byte
	events []model.Event // own their memory
	batch  bool
	want   wants
	told   *told
}

// Limits of the lessons.
const (
	maxMessageID   = 1024     // bytes of a Nats-Msg-Id
	maxLessons     = 10_000   // that wait to be answered
	maxLessonBytes = 32 << 20 // of their bodies
)

// teach validates learn events, appends them to the log under an id, and
// answers once this replica has applied them. It answers by the fold, never
// by the PubAck: to the server another payload under the same id is a
// duplicate too.
func (w *Worker) teach(req bus.Request) {
	want, err := headers(req)
	if err != nil {
		invalid(req, err)
		return
	}
	if n := len(req.Header(headerID)); n > maxMessageID {
		refuse(req, 422, fmt.Sprintf("%s has %d bytes, the most is %d", headerID, n, maxMessageID), nil)
		return
	}
	if lessons, bytes, ok := w.lessons.add(len(req.Data())); !ok {
		refuse(req, 503, fmt.Sprintf("overloaded: %d requests of %d bytes in all wait to be learned; try again", lessons, bytes), nil)
		return
	}
	req.Keep()
	go w.learn(&lesson{req: req, id: req.Header(headerID), data: req.Data(), want: want})
}

// learn takes a lesson as far as its answer, or to the parking.
func (w *Worker) learn(l *lesson) {
	done := func() { w.lessons.remove(len(l.data)) }
	taken, err := w.check(l)
	switch {
	case err != nil:
		invalid(l.req, err)
	case len(taken) > 0:
		refuse(l.req, 409, idTaken, taken)
	case l.id != "" && w.repeat(l):
	default:
		if l.id == "" {
			l.id = bus.NewID() // so that a retry of ours learns nothing twice
		}
		l.told = w.replica.await(l.id)
		w.publish(l, func() {
			w.replica.forget(l.id, l.told)
			done()
		})
		return
	}
	done()
}

const idTaken = "the id is taken by an event with another payload; use a new id"

// check decodes a lesson, refuses what the fold would reject, and names the
// events whose id is taken. Nothing bad is stored.
func (w *Worker) check(l *lesson) (taken []model.Problem, err error) {
	// The decoder is the lesson's own: its events live until the answer.
	l.events, l.batch, err = model.NewDecoder(w.cfg.Spec).Learn(l.data)
	if err != nil {
		return nil, err
	}
	var bad []model.Problem
	r := w.replica
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range l.events {
		if bad = append(bad, l.events[i].Problems...); len(l.events[i].Problems) == 0 {
			bad = append(bad, r.model.Full(&l.events[i], i, l.batch)...)
		}
	}
	if len(bad) > 0 {
		return nil, &model.InvalidError{Problems: bad}
	}
	return r.model.Conflicts(l.id, l.events, l.batch), nil
}

// repeat answers a lesson all of whose events are remembered already.
func (w *Worker) repeat(l *lesson) bool {
	outcomes := w.recall(l)
	if unknown(outcomes) {
		return false
	}
	err := w.parking.park(l.want.minSeq, 0, l.want.timeout, func(err error) {
		if err != nil {
			w.waitFailed(l.req, l.want.minSeq, err)
			return
		}
		w.answer(l, outcomes[0].Answer.Seq, outcomes)
	})
	if err != nil {
		w.waitFailed(l.req, l.want.minSeq, err)
	}
	return true
}

// recall is what the ids remember of a lesson's events; an outcome without a
// verdict is one they don't.
func (w *Worker) recall(l *lesson) []model.Outcome {
	r := w.replica
	r.mu.Lock()
	defer r.mu.Unlock()
	outcomes := make([]model.Outcome, len(l.events))
	for i := range l.events {
		if answer, conflict, found := r.model.Repeat(l.id, i, &l.events[i]); found {
			outcomes[i] = model.Outcome{Verdict: model.Duplicate, Answer: answer, Conflict: conflict}
		}
	}
	return outcomes
}

func unknown(outcomes []model.Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o model.Outcome) bool { return o.Verdict == 0 })
}

// publish appends a lesson to the log and parks it until it is applied. done
// is called once it is answered.
func (w *Worker) publish(l *lesson, done func()) {
	deadline := time.Now().Add(l.want.timeout)
	ctx, cancel := context.WithDeadline(w.appending, deadline)
	defer cancel()
	ack, err := w.cfg.Log.Append(ctx, w.cfg.Spec.Name+"."+model.SubjectLearn, l.id, l.data)
	if err != nil {
		defer done()
		w.unstored(l, err)
		return
	}
	applied := func(err error) {
		switch {
		case err != nil:
			w.waitFailed(l.req, ack.Seq, fmt.Errorf("the event is stored and will be learned, but %w", err))
		case !w.finish(l, ack):
			go func() { // the log is to be read, and this is the fold
				defer done()
				w.lookUp(l, ack)
			}()
			return
		}
		done()
	}
	if err := w.parking.park(max(ack.Seq, l.want.minSeq), 0, time.Until(deadline), applied); err != nil {
		applied(err)
	}
}

// unstored answers a lesson that was not acknowledged.
func (w *Worker) unstored(l *lesson, err error) {
	var denied *bus.PermissionError
	code, hint := 503, fmt.Sprintf("it may be stored all the same: ask again with the same Nats-Msg-Id (%s)", l.id)
	switch {
	case errors.As(err, &denied):
		hint = "this worker lacks a right"
	case errors.Is(err, bus.ErrTooLarge):
		code, hint = 413, "it is not stored: split it"
	case errors.Is(err, context.DeadlineExceeded):
		code = 504
	}
	refuse(l.req, code, fmt.Sprintf("the event was not acknowledged: %v; %s", err, hint), nil)
}

// finish answers a lesson whose sequence has been applied. If the lesson's
// own message is there, its answer is what the fold said of it; if the id was
// there before, it is what the ids remember. It returns false if that does
// not tell what became of the lesson.
func (w *Worker) finish(l *lesson, ack bus.Ack) bool {
	outcomes := w.recall(l)
	if heard := l.told.of(ack.Seq); !ack.Duplicate && len(heard) == len(outcomes) {
		for i := range outcomes {
			if !outcomes[i].Conflict {
				outcomes[i] = heard[i]
			}
		}
	}
	if unknown(outcomes) {
		return false
	}
	w.answer(l, ack.Seq, outcomes)
	return true
}

// lookUp answers a lesson that is acknowledged, and of which the fold
// remembers nothing, or not all: its id may have been used by another
// message, which the ids know under other keys; its first event may have been
// rejected, or forgotten; or the log may be another than the one that this
// replica has folded.
func (w *Worker) lookUp(l *lesson, ack bus.Ack) {
	ctx, cancel := context.WithTimeout(w.appending, defaultTimeout)
	defer cancel()
	first, err := w.cfg.Log.Message(ctx, ack.Seq)
	same := false
	if err == nil {
		same, err = w.follows(ctx)
	}
	switch {
	case err != nil:
		w.waitFailed(l.req, ack.Seq, fmt.Errorf("the event is stored, and what became of it is not known yet: %w; ask again with the same Nats-Msg-Id (%s)", err, l.id))
	case !same || !ack.Duplicate:
		w.waitFailed(l.req, ack.Seq, fmt.Errorf("the event is stored in a log that this replica has not folded yet: ask again with the same Nats-Msg-Id (%s)", l.id))
	case !bytes.Equal(first.Data, l.data) && w.remembers(l.id, first.Data):
		refuse(l.req, 409, idTaken, nil)
	default:
		w.answer(l, ack.Seq, w.recall(l))
	}
}

// remembers tells whether an event of a message was learned, not too long ago.
func (w *Worker) remembers(id string, data []byte) bool {
	first := &lesson{id: id}
	var err error
	if first.events, _, err = model.NewDecoder(w.cfg.Spec).Learn(data); err != nil {
		return false
	}
	return slices.ContainsFunc(w.recall(first), func(o model.Outcome) bool { return o.Verdict == model.Duplicate })
}

// follows tells whether the log still holds the message that this replica
// applied last.
func (w *Worker) follows(ctx context.Context) (bool, error) {
	for {
		position := w.replica.position()
		tip, err := w.cfg.Log.Message(ctx, position.Applied)
		if err != nil {
			return false, err
		}
		same := position.Check(tip)
		if w.replica.position().Applied == position.Applied {
			return same, nil
		}
	}
}

// of is what the fold said of the message at a sequence.
func (t *told) of(seq uint64) []model.Outcome {
	for _, r := range t.results {
		if r.seq == seq {
			return r.outcomes
		}
	}
	return nil
}

// answer replies to a lesson with what the fold said of each event.
func (w *Worker) answer(l *lesson, seq uint64, outcomes []model.Outcome) {
	reply := taught{Stream: w.cfg.Stream, Seq: seq, Predicted: w.predicted.value()}
	var refused []model.Problem
	code, description := 0, ""
	for _, o := range outcomes {
		event := taughtEvent{Seq: o.Answer.Seq, Duplicate: o.Verdict == model.Duplicate}
		switch {
		case o.Conflict:
			code, description = 409, idTaken
			event.Status = "refused: " + description
		case o.Verdict == model.Rejected:
			if code == 0 {
				code, description = 422, fmt.Sprintf("rejected at sequence %d; nothing of it was learned, and a correction needs a new id", seq)
			}
			event.Seq, event.Status, event.Detail = seq, "rejected", o.Problems
			refused = append(refused, o.Problems...)
		case o.Verdict == 0:
			if code == 0 {
				code, description = 422, fmt.Sprintf("the first event with this id, at sequence %d, was rejected, or learned more than dedup.window ids ago; use a new id", seq)
			}
			event.Seq, event.Status = seq, "rejected"
		default:
			event.Status, event.Learned = sentence(o.Answer), o.Answer.Learned
			reply.Learned = max(reply.Learned, o.Answer.Learned)
		}
		reply.Results = append(reply.Results, event)
	}
	if code != 0 {
		w.refuseLesson(l, code, description, refused, reply.Results)
		return
	}
	reply.Receipt = w.replica.receipt()
	if l.batch {
		reply.Status = fmt.Sprintf("learned %d events", len(outcomes))
		if len(outcomes) == 1 {
			reply.Status = "learned 1 event"
		}
		reply.Duplicate = !slices.ContainsFunc(reply.Results, func(e taughtEvent) bool { return !e.Duplicate })
	} else {
		only := reply.Results[0]
		reply.Seq, reply.Duplicate, reply.Status, reply.Results = only.Seq, only.Duplicate, only.Status, nil
	}
	w.respond(l.req, reply)
}

// refuseLesson answers a lesson that was not learned as a whole; a batch's
// answer says which of its events were.
func (w *Worker) refuseLesson(l *lesson, code int, description string, detail []model.Problem, results []taughtEvent) {
	body := map[string]any{"error": map[string]any{"code": code, "description": description}}
	if len(detail) > 0 {
		body["detail"] = detail
	}
	if l.batch {
		body["results"] = results
	}
	data, err := json.Marshal(body)
	if err != nil {
		data = bus.ErrorBody(code, description, nil)
	}
	l.req.Error(code, description, data)
}

// sentence is what the original app said of a learned event.
func sentence(a model.Answer) string {
	predicted := "None"
	if a.Known {
		predicted = a.Predicted
	}
	return fmt.Sprintf("learned %s. Initially predicted %s", a.Label, predicted)
}

// load is how many lessons wait to be answered, and their bytes.
type load struct {
	mu             sync.Mutex
	lessons, bytes int // guarded by mu
}

// add counts one more lesson, unless there are too many.
func (d *load) add(size int) (lessons, bytes int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ok = d.lessons < maxLessons && d.bytes+size <= maxLessonBytes; ok {
		d.lessons++
		d.bytes += size
	}
	return d.lessons, d.bytes, ok
}

func (d *load) remove(size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lessons--
	d.bytes -= size
}
