package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"lockstep/worker/fleet"
)

// TestOtherDoorsAreDrained: who leaves the group answers first what it has let
// in, and lets in nothing more.
func TestOtherDoorsAreDrained(t *testing.T) {
	var o outside
	if o.enter() {
		t.Fatal("the door is open before the replica serves")
	}
	o.admit(true)
	for range 2 {
		if !o.enter() {
			t.Fatal("the door is closed")
		}
	}
	o.admit(false)
	if o.enter() {
		t.Error("let in after the door was closed")
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := o.drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained with two in flight: %v", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- o.drain(t.Context()) }()
	o.exit()
	o.exit()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if err := o.drain(t.Context()); err != nil {
		t.Error("not drained when idle: ", err)
	}
}

// TestAskWhoDoesNotServe: a replica that is not in the group refuses, and says
// what it does instead.
func TestAskWhoDoesNotServe(t *testing.T) {
	f := newFleet(t)
	worker := make(chan *Worker, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	config := f.joinConfig("a")
	config.Attach = func(w *Worker) { worker <- w }
	go func() { ended <- Serve(ctx, config) }()
	w := <-worker
	for deadline := time.Now().Add(patience); w.State() != fleet.Ready; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(w.State())
		}
	}
	ask := func(verb string) (Answer, error) {
		return w.Ask(t.Context(), Question{Verb: verb, Data: []byte(row)})
	}
	for _, verb := range []string{"predict", "explain"} {
		if a, err := ask(verb); err != nil || a.Code != 0 || !strings.Contains(string(a.Body), `"seq":1`) {
			t.Errorf("%s: %+v %v", verb, a, err)
		}
	}
	if _, err := ask("dance"); err == nil {
		t.Error("an unknown verb is answered")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if a, err := ask("predict"); err != nil || a.Code != 503 || !strings.Contains(a.Description, "stopped") {
		t.Errorf("%+v %v", a, err)
	}
	// Who gives up on an answer gets its own error.
	gone, end := context.WithCancel(t.Context())
	end()
	w.outside.admit(true)
	w.parking.open(1)
	_, err := w.Ask(gone, Question{Verb: "predict", Data: []byte(row), Header: func(name string) string { return map[string]string{headerMinSeq: "9", headerTimeout: "20ms"}[name] }})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := w.outside.drain(t.Context()); err != nil { // the request is answered all the same
		t.Error(err)
	}
}
