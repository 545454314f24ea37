package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// edit changes the log's stream.
func (f *testFleet) edit(change func(*jetstream.StreamConfig)) {
	f.t.Helper()
	stream, err := f.js.Stream(f.t.Context(), "PENGUINS")
	if err != nil {
		f.t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	change(&config)
	if _, err := f.js.UpdateStream(f.t.Context(), config); err != nil {
		f.t.Fatal(err)
	}
}

// forget makes the server forget the ids it knows: it shortens its window,
// and sends it probes under one id until one is no duplicate. It returns how
// many were stored; they are control events of an unknown kind.
//
// The window is changed at each probe, for the server sets off its cleaning
// before it has the new window, and may clean by the old one, of two minutes.
func (f *testFleet) forget() (probes int) {
	f.t.Helper()
	id := bus.NewID()
	window := 101 * time.Millisecond
	for deadline := time.Now().Add(patience); probes < 2; {
		window = 201*time.Millisecond - window
		f.edit(func(c *jetstream.StreamConfig) { c.Duplicates = window })
		ack, err := f.js.Publish(f.t.Context(), "penguins.ctl.probe", nil, jetstream.WithMsgID(id))
		if err != nil || time.Now().After(deadline) {
			f.t.Fatalf("the server does not forget: %d probes stored of 2, %v", probes, err)
		}
		if !ack.Duplicate {
			probes++
		}
	}
	return probes
}

// same wants a repeat to be answered as the first was.
func (f *testFleet) same(first map[string]any, body string, headers ...string) {
	f.t.Helper()
	again, err := f.ask("teach", body, headers...)
	if err != nil || again["duplicate"] != true || again["seq"] != first["seq"] || again["status"] != first["status"] ||
		again["learned"] != first["learned"] {
		f.t.Errorf("a repeat is answered %v %v, the first was %v", again, err, first)
	}
}

// TestIDsOutliveTheServersMemory: a repeat past the server's window, and after
// a restart of all there is, is the first answer again.
func TestIDsOutliveTheServersMemory(t *testing.T) {
	f := newFleet(t)
	w := f.start("a", model.DefaultSpec())
	first, err := f.ask("teach", gentoo, "Nats-Msg-Id", "one")
	if err != nil {
		t.Fatal(err)
	}
	batch := `[{"id":"x",` + gentoo[1:] + `,` + adelie + `]`
	second, err := f.ask("teach", batch, "Nats-Msg-Id", "two")
	if err != nil {
		t.Fatal(err)
	}
	f.forget()
	f.same(first, gentoo, "Nats-Msg-Id", "one")
	f.same(second, batch, "Nats-Msg-Id", "two")
	f.refused(409, "teach", adelie, []string{"Nats-Msg-Id", "one"}, "another payload")
	w.stop()
	f.restartServer()
	f.start("b", model.DefaultSpec())
	f.same(first, gentoo, "Nats-Msg-Id", "one")
	f.same(second, batch, "Nats-Msg-Id", "two")
	// A raw publisher's repeat is stored, and not learned.
	ack, err := f.js.Publish(t.Context(), "penguins.learn", []byte(gentoo), jetstream.WithMsgID("one"))
	if err != nil || ack.Duplicate {
		t.Fatal(ack, err)
	}
	for _, s := range f.settled(1, at(ack.Sequence)) {
		if s.Learned != 3 || s.Duplicates != 1 {
			t.Errorf("%+v", s)
		}
	}
}

// TestIDsAtTheRingsEdge: the window's last id is known, the one before it is
// not; while the server knows that one it is refused, and then learned again.
func TestIDsAtTheRingsEdge(t *testing.T) {
	f := newFleet(t)
	spec := model.DefaultSpec()
	spec.DedupWindow = 3
	f.start("a", spec)
	answers := map[int]map[string]any{}
	for i := range 4 {
		var err error
		if answers[i], err = f.ask("teach", gentoo, "Nats-Msg-Id", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	f.same(answers[1], gentoo, "Nats-Msg-Id", "1")
	f.refused(422, "teach", gentoo, []string{"Nats-Msg-Id", "0"}, "more than dedup.window ids ago")
	f.forget()
	f.same(answers[1], gentoo, "Nats-Msg-Id", "1")
	again, err := f.ask("teach", gentoo, "Nats-Msg-Id", "0")
	if err != nil || again["duplicate"] != nil || again["learned"] != 5.0 {
		t.Errorf("an id that all forgot is answered %v %v", again, err)
	}
}

// TestAGuessedIDIsNoSuccess: who finds its id used by a stranger is told so.
func TestAGuessedIDIsNoSuccess(t *testing.T) {
	f := newFleet(t, "a", "b")
	learned := func(n float64) {
		t.Helper()
		got, err := f.ask("predict", row, "Lockstep-Min-Seq", "6")
		if err != nil || got["learned"] != n {
			t.Errorf("learned: %v %v, want %v", got, err, n)
		}
	}
	stranger := func(id, data string) {
		t.Helper()
		if _, err := f.js.Publish(t.Context(), "penguins.learn", []byte(data), jetstream.WithMsgID(id)); err != nil {
			t.Fatal(err)
		}
	}
	stranger("one", adelie)
	stranger("two", "["+gentoo+","+adelie+"]")
	stranger("three", `{"id":"own",`+gentoo[1:])
	stranger("four", bad)
	stranger("five", `[{"id":"element",`+adelie[1:]+`]`)
	f.settled(2, at(6))
	f.refused(409, "teach", gentoo, []string{"Nats-Msg-Id", "one"}, "the id is taken by an event with another payload")
	f.refused(
		409, "teach", `[`+gentoo+`]`, []string{"Nats-Msg-Id", "one"},
		"the id is taken by an event with another payload",
	)
	f.refused(409, "teach", gentoo, []string{"Nats-Msg-Id", "three"}, "the id is taken by an event with another payload")
	f.refused(
		409, "teach", "["+gentoo+","+adelie+","+gentoo+"]", []string{"Nats-Msg-Id", "two"},
		"the id is taken by an event with another payload",
	)
	f.refused(422, "teach", gentoo, []string{"Nats-Msg-Id", "four"}, "was rejected")
	// Of a batch with one such event nothing is stored.
	f.refused(
		409, "teach", `[`+gentoo+`,{"id":"element",`+gentoo[1:]+`]`, []string{"Nats-Msg-Id", "six"},
		`"loc":[1,"id"]`,
	)
	f.refused(409, "teach", `[{"id":"y",`+gentoo[1:]+`,{"id":"y",`+adelie[1:]+`]`, nil, `"loc":[1,"id"]`)
	learned(5)
	for _, s := range f.settled(2, at(6)) {
		if s.Duplicates != 0 || s.Rejected != 1 {
			t.Errorf("%+v", s)
		}
	}
	// The very same event is the stranger's, and is learned.
	got, err := f.ask("teach", adelie, "Nats-Msg-Id", "one")
	if err != nil || got["duplicate"] != true || got["seq"] != 2.0 {
		t.Errorf("%v %v", got, err)
	}
	// Twice the same event in a batch is one.
	got, err = f.ask("teach", `[{"id":"z",`+gentoo[1:]+`,{"id":"z",`+gentoo[1:]+`]`)
	if err != nil || got["learned"] != 6.0 {
		t.Errorf("%v %v", got, err)
	}
}

// TestTooMuchToLearn: more than a worker holds is refused with a reason, and
// all is answered.
func TestTooMuchToLearn(t *testing.T) {
	f := newFleet(t, "a")
	event := `{"x":"` + strings.Repeat("x", 9_000) + `",` + gentoo[1:]
	batch := "[" + strings.Repeat(event+",", 99) + event + "]"
	const n = 60 // less than what a server holds for a client before it cuts that off, 64 MiB
	inbox := f.nc.NewInbox()
	answers, err := f.nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		msg := &nats.Msg{
			Subject: "penguins.teach", Reply: inbox, Data: []byte(batch),
			Header: nats.Header{"Lockstep-Timeout": {"30s"}},
		}
		if err := f.nc.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	learned, refused := 0, 0
	for i := range n {
		msg, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatalf("%d of %d are answered: %v", i, n, err)
		}
		switch code := msg.Header.Get("Nats-Service-Error-Code"); {
		case code == "":
			learned++
		case code == "503" && strings.Contains(string(msg.Data), "overloaded"):
			refused++
		default:
			t.Fatalf("%s %s", code, msg.Data)
		}
	}
	t.Logf("of %d batches of %d bytes %d are learned, %d refused", n, len(batch), learned, refused)
	if learned == 0 {
		t.Error("none is learned")
	}
	if s := f.settled(1, func(fleet.Status) bool { return true })[0]; s.Dropped != 0 {
		t.Errorf("%d are lost", s.Dropped)
	}
}

// TestTooLargeForTheLog: what the stream's limit refuses is not stored.
func TestTooLargeForTheLog(t *testing.T) {
	f := newFleet(t, "a")
	f.edit(func(c *jetstream.StreamConfig) { c.MaxMsgSize = 100 })
	f.refused(413, "teach", gentoo, nil, "not stored")
}

// TestADeletedLogShows in the status, and teaching fails with a reason.
func TestADeletedLogShows(t *testing.T) {
	f := newFleet(t, "a")
	if err := f.js.DeleteStream(t.Context(), "PENGUINS"); err != nil {
		t.Fatal(err)
	}
	f.settled(1, func(s fleet.Status) bool { return strings.Contains(s.Advisory, "the log cannot be read") })
	f.refused(504, "teach", gentoo, []string{"Lockstep-Timeout", "100ms"}, "was not acknowledged")
	if got, err := f.ask("predict", row); err != nil || got["seq"] != 1.0 {
		t.Errorf("predict: %v %v", got, err)
	}
}
