package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// lesson is one teach request until its answer.
type lesson struct {
	req      bus.Request
	named    bool   // it came under a Nats-Msg-Id
	id       string // of its message
	data     []byte
	decoder  *model.Decoder // owns the events
	events   []model.Event
	batch    bool
	guards   []bus.Guard
	want     wants
	deadline time.Time

	first int         // the index of its first event in the message, not 0 in a group alone
	timer *time.Timer // ends its patience before the message is acknowledged; of a group's alone
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
func (s *Server) teach(req bus.Request) {
	want, err := headers(req)
	if err != nil {
		invalid(req, err)
		return
	}
	guards, err := guards(req)
	if err != nil {
		invalid(req, err)
		return
	}
	if stream := req.Header(headerStream); stream != "" && stream != s.cfg.Stream {
		refuse(req, &Refusal{Code: 400, ErrCode: 10060, Description: "expected stream does not match"})
		return
	}
	if n := len(req.Header(headerID)); n > maxMessageID {
		refusef(req, 422, "%s has %d bytes, the most is %d", headerID, n, maxMessageID)
		return
	}
	if lessons, bytes, ok := s.lessons.add(len(req.Data())); !ok {
		refusef(req, 503, "overloaded: %d requests of %d bytes in all wait to be learned; try again", lessons, bytes)
		return
	}
	req.Keep()
	go s.learn(s.group, &lesson{
		req: req, named: req.Header(headerID) != "", id: req.Header(headerID), data: req.Data(),
		guards: guards, want: want, deadline: time.Now().Add(want.timeout),
	})
}

// learn takes a lesson as far as its answer, to the parking, or to a group.
func (s *Server) learn(g *group, l *lesson) {
	taken, err := s.check(l)
	switch {
	case errors.Is(err, errUnready):
		s.refuseUnready(l.req)
	case err != nil:
		invalid(l.req, err)
	case len(taken) > 0:
		refuse(l.req, &Refusal{Code: 409, Description: idTaken, Detail: taken})
	case l.named && s.repeat(l):
	case g.takes(l):
		g.add(l)
		return
	default:
		s.publish(newParcel(g.ctx, l))
		return
	}
	s.release(l)
}

// release ends a lesson that is answered, and that no one uses any more.
func (s *Server) release(l *lesson) {
	l.stop()
	s.lessons.remove(len(l.data))
	if !l.batch { // what a batch needed is not worth keeping
		s.decoders.Put(l.decoder)
	}
}

const idTaken = "the id is taken by an event with another payload; use a new id"

// errUnready: the model has failed.
var errUnready = errors.New("the model has failed")

// check decodes a lesson, refuses what the fold would reject, and names the
// events whose id is taken. Nothing bad is stored.
func (s *Server) check(l *lesson) (taken []model.Problem, err error) {
	// The decoder is the lesson's own: its events live until the end.
	l.decoder = s.decoders.Get().(*model.Decoder)
	l.events, l.batch, err = l.decoder.Learn(l.data)
	if err != nil {
		return nil, err
	}
	var bad []model.Problem
	m := s.replica.Lock()
	defer s.replica.Unlock()
	if m == nil {
		return nil, errUnready
	}
	for i := range l.events {
		if bad = append(bad, l.events[i].Problems...); len(l.events[i].Problems) == 0 {
			bad = append(bad, m.Full(&l.events[i], i, l.batch)...)
		}
	}
	if len(bad) > 0 {
		return nil, &model.InvalidError{Problems: bad}
	}
	return m.Conflicts(l.id, l.events, l.batch), nil
}

// repeat answers a lesson all of whose events are remembered already.
func (s *Server) repeat(l *lesson) bool {
	outcomes := s.recall(l)
	if unknown(outcomes) {
		return false
	}
	err := s.parking.park(l.want.minSeq, 0, l.want.timeout, func(err error) {
		if err != nil {
			s.waitFailed(l.req, l.want.minSeq, err)
			return
		}
		s.answer(l, outcomes[0].Answer.Seq, outcomes)
	})
	if err != nil {
		s.waitFailed(l.req, l.want.minSeq, err)
	}
	return true
}

// recall is what the ids remember of a lesson's events; an outcome without a
// verdict is one they don't.
func (s *Server) recall(l *lesson) []model.Outcome {
	m := s.replica.Lock()
	defer s.replica.Unlock()
	outcomes := make([]model.Outcome, len(l.events))
	for i := 0; m != nil && i < len(l.events); i++ {
		if answer, conflict, found := m.Repeat(l.id, l.first+i, &l.events[i]); found {
			outcomes[i] = model.Outcome{Verdict: model.Duplicate, Answer: answer, Conflict: conflict}
		}
	}
	return outcomes
}

func unknown(outcomes []model.Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o model.Outcome) bool { return o.Verdict == 0 })
}

// publish appends a parcel to the log, and parks its lessons until it is
// applied.
func (s *Server) publish(p *parcel) {
	p.awaited = s.outcomes.await(p.id)
	if p.ctx.Err() != nil {
		for _, l := range p.lessons {
			refusef(l.req, 503, "this worker leaves the group, and the event is not stored: try again")
			s.done(p, l)
		}
		return
	}
	within, cancel := context.WithDeadline(p.ctx, p.deadline())
	defer cancel()
	ack, err := s.cfg.Log.Append(within, s.cfg.Spec.Name+"."+model.SubjectLearn, p.id, p.data, p.guards...)
	var refused *bus.RefusedError
	if len(p.lessons) > 1 && errors.As(err, &refused) {
		s.outcomes.forget(p.id, p.awaited)
		for _, l := range p.lessons {
			go s.publish(newParcel(p.ctx, l))
		}
		return
	}
	for _, l := range p.lessons {
		if err != nil {
			s.unstored(p, l, err)
			s.done(p, l)
			continue
		}
		s.await(p, l, ack)
	}
}

// done ends a lesson that is answered.
func (s *Server) done(p *parcel, l *lesson) {
	s.release(l)
	if p.left.Add(-1) == 0 {
		s.outcomes.forget(p.id, p.awaited)
	}
}

// await parks a lesson that is acknowledged until it is applied.
func (s *Server) await(p *parcel, l *lesson, ack bus.Ack) {
	l.stop() // the parking ends its patience now
	applied := func(err error) {
		switch {
		case err != nil:
			s.unapplied(p, l, ack, err)
		case s.finish(p, l, ack):
		case ack.Duplicate:
			go func() { // the log is to be read, and this is the fold
				defer s.done(p, l)
				s.lookUp(p, l, ack)
			}()
			return
		default: // its own message was stored, and this replica has met another there
			s.unapplied(p, l, ack, errOtherLog)
		}
		s.done(p, l)
	}
	if err := s.parking.park(max(ack.Seq, l.want.minSeq), 0, time.Until(l.deadline), applied); err != nil {
		applied(err)
	}
}

// errOtherLog: the log is another than the one that this replica has folded.
var errOtherLog = errors.New("this replica has not folded that log yet")

// unapplied answers a lesson that is stored, and of which this replica cannot
// say what became of it.
func (s *Server) unapplied(p *parcel, l *lesson, ack bus.Ack, err error) {
	code := 503
	if errors.Is(err, errParkTimeout) {
		code = 504
	}
	applied := s.replica.Applied()
	refusef(
		l.req, code, "the event is stored at sequence %d, this replica is at %d: %v; %s", ack.Seq, applied, err,
		p.again(),
	)
}

// unstored answers a lesson that was not acknowledged.
func (s *Server) unstored(p *parcel, l *lesson, err error) {
	var denied *bus.PermissionError
	var refused *bus.RefusedError
	code, hint := 503, "it may be stored all the same: "+p.again()
	switch {
	case errors.As(err, &denied):
		hint = "this worker lacks a right"
	case errors.As(err, &refused) && errors.Is(err, bus.ErrTooLarge): // and no earlier attempt may have been stored
		code, hint = 413, "it is not stored: split it"
	case refused != nil && len(p.guards) > 0 && refused.Code < 500:
		refuse(l.req, refusedByLog(refused))
		return
	case refused != nil:
		hint = "it is not stored: try again"
	case errors.Is(err, context.DeadlineExceeded):
		code = 504
	}
	refusef(l.req, code, "the event was not acknowledged: %v; %s", err, hint)
}

// finish answers a lesson whose sequence has been applied. If the lesson's
// own message is there, its answer is what the fold said of it; if the id was
// there before, it is what the ids remember. It returns false if that does
// not tell what became of the lesson.
func (s *Server) finish(p *parcel, l *lesson, ack bus.Ack) bool {
	heard := s.outcomes.of(p.awaited, ack.Seq)
	own := !ack.Duplicate && len(heard) == p.events
	if own && !l.named { // no one else knows the id
		s.answer(l, ack.Seq, p.own(heard[l.first:l.first+len(l.events)]))
		return true
	}
	outcomes := s.recall(l)
	for i := range outcomes {
		if own && !outcomes[i].Conflict {
			outcomes[i] = heard[i]
		}
	}
	if unknown(outcomes) {
		return false
	}
	s.answer(l, ack.Seq, outcomes)
	return true
}

// lookUp answers a lesson whose id was in the log before, and of which the fold
// remembers nothing, or not all: its id may have been used by another
// message, which the ids know under other keys; its first event may have been
// rejected, or forgotten; or the log may be another than the one that this
// replica has folded.
func (s *Server) lookUp(p *parcel, l *lesson, ack bus.Ack) {
	ctx, cancel := context.WithTimeout(p.ctx, defaultTimeout)
	defer cancel()
	first, err := s.cfg.Log.Message(ctx, ack.Seq)
	same := false
	if err == nil {
		same, err = s.replica.OnLog(ctx)
	}
	switch {
	case err != nil:
		s.unapplied(p, l, ack, fmt.Errorf("what became of it is not known yet: %w", err))
	case !same:
		s.unapplied(p, l, ack, errOtherLog)
	case !bytes.Equal(first.Data, p.data) && s.remembers(p.id, first.Data):
		refusef(l.req, 409, idTaken)
	default:
		s.answer(l, ack.Seq, s.recall(l))
	}
}

// remembers reports whether an event of a message was learned, not too long ago.
func (s *Server) remembers(id string, data []byte) bool {
	first := &lesson{id: id}
	var err error
	if first.events, _, err = model.NewDecoder(s.cfg.Spec).Learn(data); err != nil {
		return false
	}
	return slices.ContainsFunc(s.recall(first), func(o model.Outcome) bool { return o.Verdict == model.Duplicate })
}

// answer replies to a lesson with what the fold said of each event.
func (s *Server) answer(l *lesson, seq uint64, outcomes []model.Outcome) {
	reply := &Taught{Stream: s.cfg.Stream, Seq: seq, Predicted: s.predicted.value()}
	var detail []model.Problem
	code, description := 0, ""
	for _, o := range outcomes {
		event := TaughtEvent{Seq: o.Answer.Seq, Index: o.Answer.Index, Duplicate: o.Verdict == model.Duplicate}
		switch {
		case o.Conflict:
			code, description = 409, idTaken
			event.Status = "refused: " + description
		case o.Verdict == model.Rejected:
			if code == 0 {
				code, description = 422, fmt.Sprintf(
					"rejected at sequence %d; nothing of it was learned, and a correction needs a new id", seq,
				)
			}
			event.Seq, event.Status, event.Detail = seq, "rejected", o.Problems
			detail = append(detail, o.Problems...)
		case o.Verdict == 0:
			if code == 0 {
				code, description = 422, fmt.Sprintf(
					"the first event with this id, at sequence %d, was rejected, or learned more than dedup.window ids ago; use a "+
						"new id",
					seq,
				)
			}
			event.Seq, event.Status = seq, "rejected"
		default:
			event.Status, event.Learned = sentence(o.Answer), o.Answer.Learned
			reply.Learned = max(reply.Learned, o.Answer.Learned)
		}
		reply.Results = append(reply.Results, event)
	}
	if code != 0 {
		if code == 409 {
			detail = append(s.conflicts(l), detail...)
		}
		refusal := &Refusal{Code: code, Description: description, Detail: detail}
		if l.batch { // which of its events were learned
			refusal.Results = reply.Results
		}
		refuse(l.req, refusal)
		return
	}
	reply.Receipt = s.receipt()
	if l.batch {
		reply.Status = fmt.Sprintf("learned %d events", len(outcomes))
		if len(outcomes) == 1 {
			reply.Status = "learned 1 event"
		}
		reply.Duplicate = !slices.ContainsFunc(reply.Results, func(e TaughtEvent) bool { return !e.Duplicate })
	} else {
		only := reply.Results[0]
		reply.Seq, reply.Index, reply.Duplicate, reply.Status, reply.Results = only.Seq, only.Index, only.Duplicate, only.Status, nil
	}
	s.respond(l.req, reply)
}

// conflicts names the events of a lesson whose id is taken now.
func (s *Server) conflicts(l *lesson) []model.Problem {
	m := s.replica.Lock()
	defer s.replica.Unlock()
	if m == nil {
		return nil
	}
	return m.Conflicts(l.id, l.events, l.batch)
}

// receipt names the present state; empty if the model has failed.
func (s *Server) receipt() string {
	m := s.replica.Lock()
	defer s.replica.Unlock()
	if m == nil {
		return ""
	}
	return s.labels.moment(m).Receipt
}

// sentence is what the original app said of a learned event.
func sentence(a model.Answer) string {
	predicted := "None"
	if a.Known {
		predicted = a.Predicted.String()
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
