package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
func (f *testFleet) forget() (probes int) {
	f.t.Helper()
	f.edit(func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	id := bus.NewID()
	for deadline := time.Now().Add(patience); probes < 2; {
		ack, err := f.js.Publish(f.t.Context(), "penguins.ctl.probe", nil, jetstream.WithMsgID(id))
		if err != nil || time.Now().After(deadline) {
			f.t.Fatal("the server does not forget", err)
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
	if err != nil || again["duplicate"] != true || again["seq"] != first["seq"] || again["status"] != first["status"] || again["learned"] != first["learned"] {
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
// not; while the server knows that one it is refused, and then learned anew.
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
	f.refused(409, "teach", gentoo, []string{"Nats-Msg-Id", "one"}, idTaken)
	f.refused(409, "teach", `[`+gentoo+`]`, []string{"Nats-Msg-Id", "one"}, idTaken)
	f.refused(409, "teach", gentoo, []string{"Nats-Msg-Id", "three"}, idTaken)
	f.refused(409, "teach", "["+gentoo+","+adelie+","+gentoo+"]", []string{"Nats-Msg-Id", "two"}, idTaken)
	f.refused(422, "teach", gentoo, []string{"Nats-Msg-Id", "four"}, "was rejected")
	// Of a batch with one such event nothing is stored.
	f.refused(409, "teach", `[`+gentoo+`,{"id":"element",`+gentoo[1:]+`]`, []string{"Nats-Msg-Id", "six"}, `"loc":[1,"id"]`)
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

// elsewhere is a log whose server was given another history than the one that
// is replayed.
type elsewhere struct {
	Log
	ack bus.Ack
	tip *bus.Message
}

func (l *elsewhere) Append(context.Context, string, string, []byte, ...bus.Guard) (bus.Ack, error) {
	return l.ack, nil
}

func (l *elsewhere) Message(_ context.Context, seq uint64) (*bus.Message, error) {
	if l.tip == nil {
		return nil, errors.New("no such message")
	}
	msg := *l.tip
	msg.Seq = seq
	return &msg, nil
}

// run runs a worker on a log of the test's, until it is ready.
func (f *testFleet) run(log Log) *Worker { return f.runWith(log, model.DefaultSpec()) }

func (f *testFleet) runWith(log Log, spec *model.Spec) *Worker {
	f.t.Helper()
	doors, err := bus.Connect(f.t.Context(), bus.ConnectConfig{Server: f.url})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(doors.Close)
	predicted, err := bus.OpenCounter(f.t.Context(), f.nc, "PENGUINS_COUNTS", "penguins.count.predicted", 1)
	if err != nil {
		f.t.Fatal(err)
	}
	w, err := New(Config{
		Name: "a", Stream: "PENGUINS", Version: "1.2.3", Spec: spec, Log: log, Doors: bus.Doors{Conn: doors},
		Predicted: predicted, Verdicts: simVerdicts{}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	f.settled(1, func(s Status) bool { return s.State == "ready" })
	return w
}

// TestALogThatIsAnotherNow: a teach that a log acknowledges which this replica
// has not folded is never called rejected, and never learned.
func TestALogThatIsAnotherNow(t *testing.T) {
	f := newFleet(t)
	log, err := bus.OpenLog(t.Context(), f.nc, bus.LogConfig{Model: "penguins", Genesis: func() []byte { return model.NewGenesis(model.DefaultSpec(), "i") }})
	if err != nil {
		t.Fatal(err)
	}
	l := &elsewhere{Log: log}
	w := f.run(l)
	f.publish(gentoo)
	f.settled(1, at(2))
	for _, ack := range []bus.Ack{{Seq: 2}, {Seq: 2, Duplicate: true}} {
		for _, tip := range []*bus.Message{nil, {Subject: "penguins.learn", Data: []byte(adelie)}} {
			l.ack, l.tip = ack, tip
			f.refused(503, "teach", adelie, []string{"Nats-Msg-Id", "one"}, "ask again with the same Nats-Msg-Id (one)")
		}
	}
	if lessons, bytes, _ := w.lessons.add(0); lessons != 1 || bytes != 0 {
		t.Errorf("%d lessons of %d bytes are not done", lessons, bytes)
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
		msg := &nats.Msg{Subject: "penguins.teach", Reply: inbox, Data: []byte(batch), Header: nats.Header{"Lockstep-Timeout": {"30s"}}}
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
	f.settled(1, func(s Status) bool { return strings.Contains(s.Advisory, "the log cannot be read") })
	f.refused(504, "teach", gentoo, []string{"Lockstep-Timeout", "100ms"}, "was not acknowledged")
	if got, err := f.ask("predict", row); err != nil || got["seq"] != 1.0 {
		t.Errorf("predict: %v %v", got, err)
	}
}

// TestLessonsAreBounded, in number and in bytes.
func TestLessonsAreBounded(t *testing.T) {
	var d load
	for i := range maxLessons + 1 {
		if _, _, ok := d.add(0); ok != (i < maxLessons) {
			t.Fatalf("lesson %d is taken: %t", i, ok)
		}
	}
	d.remove(0)
	if _, _, ok := d.add(maxLessonBytes + 1); ok {
		t.Error("too many bytes are taken")
	}
	if lessons, bytes, ok := d.add(maxLessonBytes); lessons != maxLessons || bytes != maxLessonBytes || !ok {
		t.Error(lessons, bytes, ok)
	}
}
