package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// question is a request about a row, with headers.
type question struct {
	asked
	headers map[string]string
}

func (q *question) Data() []byte          { return []byte(row) }
func (q *question) HeaderNames() []string { return slices.Collect(maps.Keys(q.headers)) }

func (q *question) Header(name string) string { return q.headers[name] }

// reply is the answer that was given, nil if there is none yet.
func (q *question) reply(t *testing.T) map[string]any {
	t.Helper()
	if q.body == nil {
		return nil
	}
	var body map[string]any
	if err := json.Unmarshal(q.body, &body); err != nil {
		t.Fatal(err)
	}
	return body
}

// TestEveryReplyIsOfItsSequence: what was built for the one before is not said
// again.
func TestEveryReplyIsOfItsSequence(t *testing.T) {
	l := alone(t)
	for seq := uint64(1); seq < 5; seq++ {
		l.fold(t, seq)
		for range 2 {
			q := &question{}
			l.predict(q)
			got := q.reply(t)
			receipt, err := model.ParseReceipt(fmt.Sprint(got["receipt"]))
			if err != nil || receipt != l.replica.model.Receipt() || got["seq"] != float64(seq) || got["learned"] != float64(seq-1) {
				t.Errorf("at %d: %s %v", seq, q.body, err)
			}
		}
	}
	l.drain()
}

// TestMinSeqIsWaitedFor: no answer before that sequence, and then of it; on
// every door.
func TestMinSeqIsWaitedFor(t *testing.T) {
	l := alone(t)
	l.fold(t, 2)
	for seq := uint64(3); seq < 6; seq++ {
		var waiting []*question
		for _, door := range []func(bus.Request){l.predict, l.explain} {
			q := &question{headers: map[string]string{headerMinSeq: fmt.Sprint(seq), headerTimeout: "1m"}}
			door(q)
			waiting = append(waiting, q)
			if got := q.reply(t); got != nil {
				t.Fatalf("asked for %d at %d: %d %v", seq, seq-1, q.code, got)
			}
		}
		l.fold(t, seq)
		for _, q := range waiting {
			if got := q.reply(t); q.code != 0 || got["seq"] != float64(seq) {
				t.Errorf("asked for %d: %d %v", seq, q.code, got)
			}
		}
	}
	answered := make(chan int, 1)
	late := &late{question{headers: map[string]string{headerMinSeq: "99", headerTimeout: "1ms"}}, answered}
	l.predict(late)
	select {
	case code := <-answered:
		if code != 504 {
			t.Errorf("answered with %d", code)
		}
	case <-time.After(patience):
		t.Error("it waits on")
	}
	l.drain()
}

// late is a question that is answered by a timer.
type late struct {
	question
	answered chan int
}

func (l *late) Error(code int, _ string, _ []byte) { l.answered <- code }

// ledger is a log that takes what comes, and is read by the test.
type ledger struct {
	Log
	seq uint64
}

func (l *ledger) Limit() int { return bus.MaxMessage }

func (l *ledger) Append(context.Context, string, string, []byte, ...bus.Guard) (bus.Ack, error) {
	return bus.Ack{Seq: l.seq}, nil
}

func (l *ledger) Message(context.Context, uint64) (*bus.Message, error) {
	return nil, bus.ErrNoMessage
}

// lecture is a teach request.
type lecture struct {
	bus.Request
	id       string
	answered chan []byte
}

func (l *lecture) Data() []byte { return []byte(gentoo) }

func (l *lecture) HeaderNames() []string { return nil }

func (l *lecture) Header(name string) string {
	return map[string]string{headerID: l.id, headerTimeout: "1m"}[name]
}

func (l *lecture) Keep()                           {}
func (l *lecture) Reply(body []byte)               { l.answered <- bytes.Clone(body) }
func (l *lecture) Error(_ int, _ string, b []byte) { l.answered <- b }

// read makes a message ready for the fold.
func read(spec *model.Spec, msg *bus.Message) *entry {
	e := &entry{Entry: *model.NewEntry(spec)}
	e.read(spec.Name, msg)
	return e
}

// TestTaughtOnceItIsApplied: an acknowledgement is no answer yet.
func TestTaughtOnceItIsApplied(t *testing.T) {
	l := alone(t)
	l.cfg.Log = &ledger{seq: 3}
	l.setState(fleet.Replaying)
	l.fold(t, 2)
	req := &lecture{id: "x", answered: make(chan []byte, 1)}
	l.teach(req)
	for deadline := time.Now().Add(patience); l.parking.len() == 0; {
		if len(req.answered) > 0 || time.Now().After(deadline) {
			t.Fatalf("at 2 it does not wait for 3: %s", <-req.answered)
		}
	}
	if err := l.deliver(read(l.cfg.Spec, &bus.Message{Seq: 3, Subject: "penguins.learn", ID: "x", Data: []byte(gentoo), Time: time.Now()})); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(<-req.answered, &got); err != nil {
		t.Fatal(err)
	}
	if got["seq"] != 3.0 || got["learned"] != 2.0 || got["duplicate"] != nil {
		t.Errorf("answered %v", got)
	}
	l.drain()
}

// plain is a request for a prediction.
type plain struct {
	t    *testing.T
	data []byte
	body []byte
}

func (p *plain) Keep()                 { p.t.Error("it is kept") }
func (p *plain) Data() []byte          { return p.data }
func (p *plain) HeaderNames() []string { return nil }

func (p *plain) Header(string) string               { return "" }
func (p *plain) Reply(body []byte)                  { p.body = append(p.body[:0], body...) }
func (p *plain) Error(_ int, text string, _ []byte) { p.t.Error(text) }

// TestAPredictionAllocatesNothing: from the bytes of a request to the bytes of
// its answer.
func TestAPredictionAllocatesNothing(t *testing.T) {
	l := alone(t)
	l.fold(t, 5)
	req := &plain{t: t, data: []byte(row)}
	if n := testing.AllocsPerRun(1000, func() { l.predict(req) }); n != 0 && !raced() {
		t.Errorf("%v allocations", n)
	}
	if !bytes.HasPrefix(req.body, []byte(`{"species":"Gentoo","predicted":`)) {
		t.Errorf("answered %s", req.body)
	}
}

// raced tells whether the race detector runs, which makes pools forget.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
