package serve

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"lockstep/bus/bustest"
	"lockstep/model"
)

// TestRequestsOfThisProcessAreDrained: a replica that leaves the group answers
// first what it has let in, and lets in nothing more.
func TestRequestsOfThisProcessAreDrained(t *testing.T) {
	var i inside
	if i.enter() {
		t.Fatal("let in before the replica serves")
	}
	i.admit(true)
	for range 2 {
		if !i.enter() {
			t.Fatal("not let in")
		}
	}
	i.admit(false)
	if i.enter() {
		t.Error("let in after the replica left")
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := i.drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained with two in flight: got %v, want that its time is over", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- i.drain(t.Context()) }()
	i.exit()
	i.exit()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if err := i.drain(t.Context()); err != nil {
		t.Error("not drained when idle: ", err)
	}
}

// TestCallsAreTyped: what this process asks is what a client over NATS gets.
func TestCallsAreTyped(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	memory := bustest.NewLog("penguins", 1, model.NewGenesis(r.cfg.Spec, "i"))
	r.tail(memory, memory)
	ctx := t.Context()
	taught, err := r.Teach(ctx, Request{Data: []byte(gentoo)})
	if err != nil || taught.Seq != 2 || taught.Learned != 1 ||
		taught.Status != "learned Gentoo. Initially predicted None" {
		t.Fatalf("teach: got %+v %v, want Gentoo learned at 2", taught, err)
	}
	p, err := r.Predict(ctx, Request{Data: []byte(row)})
	if err != nil || string(p.Label) != `"Gentoo"` || p.Seq != 2 || p.Learned != 1 || p.Receipt != taught.Receipt {
		t.Errorf("predict: got %+v %v, want Gentoo at 2", p, err)
	}
	if got, want := string(p.AppendBare(nil)), `{"species":"Gentoo","predicted":1,"learned":1}`; got != want {
		t.Errorf("bare: got %s, want %s", got, want)
	}
	r.predicted.pending-- // the next one has the same number
	if got, want := string(p.AppendJSON(nil)), string(r.ask("predict", row).body); got != want {
		t.Errorf("predict: got %s, over NATS %s", got, want)
	}
	e, err := r.Explain(ctx, Request{Data: []byte(row)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(e); err != nil || string(got) != string(r.ask("explain", row).body) {
		t.Errorf("explain: got %s %v, over NATS %s", got, err, r.ask("explain", row).body)
	}
	_, err = r.Predict(ctx, Request{Data: []byte(`{"island":1}`)})
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Code != 422 || len(refusal.Detail) != 6 {
		t.Fatalf("a bad row: got %v, want a refusal with 6 problems", err)
	}
	if got, want := string(refusal.body()), string(r.ask("predict", `{"island":1}`).body); got != want {
		t.Errorf("a bad row: got %s, over NATS %s", got, want)
	}
}

// TestACallOfAServerThatHasNotJoined is refused, and says why.
func TestACallOfAServerThatHasNotJoined(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.fold(1)
	_, err := r.Predict(t.Context(), Request{Data: []byte(row)})
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Code != 503 || !strings.Contains(refusal.Description, "it is on a rig") {
		t.Errorf("got %v, want a refusal with 503", err)
	}
}

// TestACallThatIsGivenUp: its caller gets its own context's error, and the
// request is answered all the same.
func TestACallThatIsGivenUp(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.fold(1)
	r.inside.admit(true)
	gone, end := context.WithCancel(t.Context())
	end()
	headers := map[string]string{headerMinSeq: "9", headerTimeout: "20ms"}
	_, err := r.Predict(gone, Request{Data: []byte(row), Header: func(name string) string { return headers[name] }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if err := r.inside.drain(t.Context()); err != nil {
		t.Error(err)
	}
}
