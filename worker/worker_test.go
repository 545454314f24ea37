package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait of a test.
const patience = time.Minute

// fleet is a server and workers that a test starts on it.
type testFleet struct {
	t      *testing.T
	server *broker.Server
	store  string
	url    string
	nc     *bus.Conn
	js     jetstream.JetStream
}

func newFleet(t *testing.T, workers ...string) *testFleet {
	t.Helper()
	t.Parallel()
	f := &testFleet{t: t, store: t.TempDir()}
	f.startServer(0)
	t.Cleanup(func() {
		if err := f.server.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	var err error
	if f.nc, err = bus.Connect(t.Context(), bus.ConnectConfig{Server: f.url}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.nc.Close)
	if f.js, err = jetstream.New(f.nc.Conn); err != nil {
		t.Fatal(err)
	}
	for _, name := range workers {
		f.start(name, model.DefaultSpec())
	}
	return f
}

func (f *testFleet) startServer(port int) {
	f.t.Helper()
	var err error
	if f.server, err = broker.Start(f.t.Context(), broker.Config{StoreDir: f.store, Port: port}); err != nil {
		f.t.Fatal(err)
	}
	f.url = f.server.ClientURL()
}

// restartServer stops the server, and starts it on the same port and store.
func (f *testFleet) restartServer() {
	f.t.Helper()
	port := f.server.Port()
	if err := f.server.Shutdown(); err != nil {
		f.t.Fatal(err)
	}
	f.startServer(port)
}

// running is a worker that a test started.
type running struct {
	stop func()
	err  <-chan error
}

// start starts a worker, and returns once it is ready.
func (f *testFleet) start(name string, s *model.Spec) running {
	f.t.Helper()
	return f.startTampered(name, s, nil)
}

// startTampered starts a worker on a machine that fails.
func (f *testFleet) startTampered(name string, s *model.Spec, tamper func(*model.Model) *model.Model) running {
	f.t.Helper()
	ready := make(chan struct{})
	r := f.launch(name, s, tamper, func(fleet.State) func(fleet.State) {
		var once sync.Once
		return func(s fleet.State) {
			if s == fleet.Ready {
				once.Do(func() { close(ready) })
			}
		}
	}(fleet.Ready))
	select {
	case <-ready:
	case err := <-r.err:
		f.t.Fatalf("worker %s: %v", name, err)
	case <-time.After(patience):
		f.t.Fatalf("worker %s is not ready", name)
	}
	return r
}

func (f *testFleet) joinConfig(name string) JoinConfig {
	return JoinConfig{
		Connect: bus.ConnectConfig{
			Server: f.url,
		}, Name: name, Version: "1.2.3", Spec: model.DefaultSpec(), Logger: slog.New(slog.DiscardHandler),
	}
}

func (f *testFleet) launch(
	name string, s *model.Spec,
	tamper func(*model.Model) *model.Model,
	onState func(fleet.State),
) running {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		config := f.joinConfig(name)
		config.Spec, config.OnState, config.Tamper = s, onState, tamper
		ended <- Serve(ctx, config)
	}()
	stop := func() { cancel(); <-finished }
	f.t.Cleanup(stop)
	return running{stop, ended}
}

// ask sends a request; headers come as name, value, …
func (f *testFleet) ask(verb, body string, headers ...string) (map[string]any, error) {
	f.t.Helper()
	header := nats.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	answer, err := bus.Ask(ctx, f.nc, "penguins."+verb, []byte(body), header)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	if err := json.Unmarshal(answer.Data, &out); err != nil {
		f.t.Fatalf("%s: %v", answer.Data, err)
	}
	return out, nil
}

// refused asks, and wants an error with a code, whose body has all the texts.
func (f *testFleet) refused(code int, verb, body string, headers []string, texts ...string) {
	f.t.Helper()
	answer, err := f.ask(verb, body, headers...)
	var remote *bus.RemoteError
	if !errors.As(err, &remote) || remote.Code != code {
		f.t.Errorf("%s %s: %v %v, want %d", verb, body, answer, err, code)
		return
	}
	for _, text := range texts {
		if !strings.Contains(string(remote.Body), text) {
			f.t.Errorf("%s %s: %s\nhas no %s", verb, body, remote.Body, text)
		}
	}
}

// publish appends to the log as any client does, and returns the sequence.
func (f *testFleet) publish(data string) uint64 {
	f.t.Helper()
	// A server that has just been restarted may lose what it was sent.
	id, deadline := bus.NewID(), time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Second)
		ack, err := f.js.Publish(ctx, "penguins.learn", []byte(data), jetstream.WithMsgID(id))
		cancel()
		if err == nil {
			return ack.Sequence
		}
		if time.Now().After(deadline) {
			f.t.Fatal(err)
		}
	}
}

// settled waits until n workers satisfy a condition, and returns them.
func (f *testFleet) settled(n int, ok func(fleet.Status) bool) []fleet.Status {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		answers, err := bus.Gather(f.t.Context(), f.nc, "penguins.status", nil, 100*time.Millisecond)
		var all []fleet.Status
		good := 0
		for _, a := range answers {
			var s fleet.Status
			if err := json.Unmarshal(a.Data, &s); err != nil {
				f.t.Fatal(err)
			}
			if all = append(all, s); ok(s) {
				good++
			}
		}
		if good == n && len(all) == n {
			return all
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("not %d workers as wanted: %v %+v", n, err, all)
		}
	}
}

func at(seq uint64) func(fleet.Status) bool { return func(s fleet.Status) bool { return s.Seq == seq } }

const (
	row    = `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}`
	gentoo = `{"attributes":` + row + `,"species":"Gentoo"}`
	adelie = `{"attributes":` + row + `,"species":"Adelie"}`
	bad    = `{"attributes":{"island":"Biscoe","bill_length_mm":-1},"species":"Gentoo"}`
)

func TestPredictAndTeach(t *testing.T) {
	f := newFleet(t, "a", "b")
	got, err := f.ask("predict", row)
	if err != nil || got["species"] != nil || got["learned"] != 0.0 || got["seq"] != 1.0 {
		t.Fatalf("an empty model predicts %v %v", got, err)
	}
	got, err = f.ask("teach", gentoo)
	if err != nil || got["status"] != "learned Gentoo. Initially predicted None" || got["learned"] != 1.0 ||
		got["seq"] != 2.0 ||
		got["stream"] != "PENGUINS" {
		t.Fatalf("teach: %v %v", got, err)
	}
	got, err = f.ask("teach", adelie, "Nats-Msg-Id", "x", "Lockstep-Min-Seq", "2")
	if err != nil || got["status"] != "learned Adelie. Initially predicted Gentoo" || got["duplicate"] != nil {
		t.Fatalf("teach: %v %v", got, err)
	}
	got, err = f.ask("predict", row, "Lockstep-Min-Seq", "3")
	if err != nil || got["species"] != "Gentoo" || got["seq"] != 3.0 {
		t.Fatalf("predict: %v %v", got, err)
	}
	receipt, err := model.ParseReceipt(got["receipt"].(string))
	if err != nil || receipt.Seq != 3 {
		t.Errorf("receipt %v: %v", got["receipt"], err)
	}
	got, err = f.ask("explain", row, "Lockstep-Min-Seq", "3")
	if err != nil || got["species"] != "Gentoo" || len(got["features"].([]any)) != 4 {
		t.Errorf("explain: %v %v", got, err)
	}
}

func TestBadInputIsRefusedWhole(t *testing.T) {
	f := newFleet(t, "a")
	f.refused(
		422, "predict", `{"island":1}`, nil, `"loc":["island"]`,
		`"loc":["bill_length_mm"],"msg":"Field required","type":"missing"`, `"code":422`,
	)
	f.refused(422, "predict", `{`, nil, "json_invalid")
	f.refused(422, "predict", ``, nil, "json_invalid")
	f.refused(422, "explain", `[]`, nil, "model_attributes_type")
	f.refused(
		422, "teach", bad, nil,
		`["attributes","bill_length_mm"],"msg":"Input should be greater than or equal to 0"`,
		`["attributes","sex"],"msg":"Field required"`,
	)
	f.refused(422, "teach", "["+gentoo+","+bad+"]", nil, `[1,"attributes","bill_length_mm"]`)
	f.refused(
		422, "predict", row, []string{"Lockstep-Min-Seq", "soon", "Lockstep-Timeout", "1h"},
		`["header","Lockstep-Min-Seq"]`, `["header","Lockstep-Timeout"]`,
	)
	f.refused(413, "predict", strings.Repeat(" ", 70_000), nil, "the body has 70000 bytes")
	for _, s := range f.settled(1, at(1)) {
		if s.Learned+s.Rejected != 0 {
			t.Errorf("bad input changed the state: %+v", s)
		}
	}
}

func TestIDs(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	first, err := f.ask("teach", gentoo, "Nats-Msg-Id", "one")
	if err != nil {
		t.Fatal(err)
	}
	for range 12 { // on any worker
		again, err := f.ask("teach", gentoo, "Nats-Msg-Id", "one", "Lockstep-Min-Seq", "2")
		if err != nil || again["duplicate"] != true || again["seq"] != first["seq"] || again["status"] != first["status"] ||
			again["learned"] != first["learned"] {
			t.Fatalf("a repeat is answered %v %v, the first was %v", again, err, first)
		}
		f.refused(409, "teach", adelie, []string{"Nats-Msg-Id", "one"}, "another payload")
	}
	f.refused(
		504, "teach", gentoo,
		[]string{"Nats-Msg-Id", "one", "Lockstep-Min-Seq", "999", "Lockstep-Timeout", "20ms"},
		"sequence 999 is asked for",
	)
	f.refused(422, "teach", gentoo, []string{"Nats-Msg-Id", strings.Repeat("x", 2000)}, "Nats-Msg-Id has 2000 bytes")
	f.publish(bad) // at 3: rejected, and it has no id
	batch := "[" + gentoo + "," + adelie + "]"
	got, err := f.ask("teach", batch, "Nats-Msg-Id", "two")
	if err != nil || len(got["results"].([]any)) != 2 || got["learned"] != 3.0 || got["status"] != "learned 2 events" {
		t.Fatalf("a batch is answered %v %v", got, err)
	}
	got, err = f.ask("teach", batch, "Nats-Msg-Id", "two", "Lockstep-Min-Seq", "4")
	if err != nil || got["duplicate"] != true || got["learned"] != 3.0 {
		t.Fatalf("a repeated batch is answered %v %v", got, err)
	}
	// Rejected under an id: the same id again says so, and is not learned.
	if _, err := f.js.Publish(t.Context(), "penguins.learn", []byte(bad), jetstream.WithMsgID("three")); err != nil {
		t.Fatal(err)
	}
	f.refused(422, "teach", gentoo, []string{"Nats-Msg-Id", "three"}, "at sequence 5", "use a new id")
	for _, s := range f.settled(3, at(5)) {
		if s.Learned != 3 || s.Rejected != 2 || s.Duplicates != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestIDsAreRememberedPastARestart(t *testing.T) {
	f := newFleet(t)
	w := f.start("a", model.DefaultSpec())
	first, err := f.ask("teach", gentoo, "Nats-Msg-Id", "one")
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	f.start("b", model.DefaultSpec())
	again, err := f.ask("teach", gentoo, "Nats-Msg-Id", "one")
	if err != nil || again["duplicate"] != true || again["status"] != first["status"] || again["seq"] != first["seq"] {
		t.Fatalf("answered %v %v, the first was %v", again, err, first)
	}
}

func TestMinSeq(t *testing.T) {
	f := newFleet(t, "a")
	f.refused(
		504, "predict", row, []string{"Lockstep-Min-Seq", "9", "Lockstep-Timeout", "20ms"},
		"sequence 9 is asked for, this replica is at 1",
	)
	answered := make(chan map[string]any, 1)
	go func() {
		got, err := f.ask("predict", row, "Lockstep-Min-Seq", "2", "Lockstep-Timeout", "15s")
		if err != nil {
			t.Error(err)
		}
		answered <- got
	}()
	f.settled(1, func(s fleet.Status) bool { return s.Parked == 1 })
	f.publish(gentoo)
	if got := <-answered; got["species"] != "Gentoo" || got["seq"] != 2.0 {
		t.Errorf("answered %v", got)
	}
}

// TestRejectionsAreReportedOnce: by whichever replica, and all of a burst.
func TestRejectionsAreReportedOnce(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	f.publish(bad)
	f.publish("[" + gentoo + ",7,8]")
	last := f.publish(`{"attributes"`)
	burst := "[" + strings.Repeat(bad+",", 999) + bad + "]"
	for range 2 {
		last = f.publish(burst)
	}
	const want = 4 + 2*1000
	stream, err := f.js.Stream(t.Context(), "PENGUINS_VERDICTS")
	if err != nil {
		t.Fatal(err)
	}
	reported := func() (msgs uint64, subjects int) {
		info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("penguins.verdict.>"))
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs, len(info.State.Subjects)
	}
	deadline := time.Now().Add(patience)
	for msgs, subjects := reported(); subjects < want; msgs, subjects = reported() {
		if time.Now().After(deadline) {
			t.Fatalf("got %d reports on %d subjects, want %d", msgs, subjects, want)
		}
	}
	if msgs, _ := reported(); msgs != want {
		t.Errorf("got %d reports, want %d", msgs, want)
	}
	for _, s := range f.settled(3, at(last)) {
		if s.Rejected != want || s.Learned != 1 || s.Unreported != 0 {
			t.Errorf("got %+v", s)
		}
	}
}

func TestPredictedCountsForTheFleet(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	const n = 100
	for range n {
		if _, err := f.ask("predict", row); err != nil {
			t.Fatal(err)
		}
	}
	f.settled(3, func(s fleet.Status) bool { return s.Predicted == n })
}

func TestAnotherContractIsRefused(t *testing.T) {
	f := newFleet(t, "a")
	s := model.DefaultSpec()
	s.DedupWindow = 7
	r := f.launch("b", s, nil, nil)
	select {
	case err := <-r.err:
		own, theirs := s.Contract(), model.DefaultSpec().Contract()
		if !errors.Is(err, replica.ErrContract) || !strings.Contains(err.Error(), fmt.Sprintf("%x", own[:8])) ||
			!strings.Contains(err.Error(), fmt.Sprintf("%x", theirs[:8])) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
}

func TestAHoleIsNotLearnedAcross(t *testing.T) {
	f := newFleet(t)
	w := f.start("a", model.DefaultSpec())
	f.publish(gentoo)
	f.publish(gentoo)
	f.settled(1, at(3))
	w.stop()
	stream, err := f.js.Stream(t.Context(), "PENGUINS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	r := f.launch("b", model.DefaultSpec(), nil, nil)
	select {
	case err := <-r.err:
		var gap *bus.GapError
		if !errors.As(err, &gap) || gap.Want != 1 || gap.Got != 3 {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
}

// TestALogMadeAnewIsFoldedAnew deletes the log under a worker, and makes
// another with more messages than were applied.
func TestALogMadeAnewIsFoldedAnew(t *testing.T) {
	f := newFleet(t, "a")
	f.publish(gentoo)
	f.settled(1, at(2))
	if err := f.js.DeleteStream(t.Context(), "PENGUINS"); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.OpenLog(t.Context(), f.nc, bus.LogConfig{Model: "penguins", Genesis: func() []byte {
		return model.NewGenesis(model.DefaultSpec(), bus.NewID())
	}}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		f.publish(adelie)
	}
	f.start("b", model.DefaultSpec())
	all := f.settled(2, func(s fleet.Status) bool { return s.Seq >= 6 && s.State == "ready" })
	if all[0].Incarnation != all[1].Incarnation || all[0].Learned != 5 || all[1].Learned != 5 ||
		all[0].Digest != all[1].Digest && all[0].Seq == all[1].Seq {
		t.Errorf("%+v", all)
	}
	for _, s := range all {
		if s.Replica == "a" && !strings.Contains(s.Advisory, "rolled back") {
			t.Errorf("a says nothing of it: %+v", s)
		}
	}
	if got, err := f.ask("predict", row, "Lockstep-Min-Seq", "6"); err != nil || got["species"] != "Adelie" {
		t.Errorf("predict: %v %v", got, err)
	}
}

// TestOneIDTaughtByMany: of two payloads under one id one is learned, once;
// anyone who sent that one gets its answer, anyone who sent the other a 409. A
// worker whose first acknowledgement was lost cannot tell its own message from
// another's of the same payload, so on a busy machine more than one answer of a
// round may be no repeat; but never none, and not all of all rounds.
func TestOneIDTaughtByMany(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	const rounds, clients = 20, 8
	repeats := 0
	for round := range rounds {
		type result struct {
			body   string
			answer map[string]any
			err    error
		}
		results := make(chan result, clients)
		for c := range clients {
			go func() {
				body := []string{gentoo, adelie}[c%2]
				answer, err := f.ask("teach", body, "Nats-Msg-Id", fmt.Sprint("id", round), "Lockstep-Timeout", "15s")
				results <- result{body, answer, err}
			}()
		}
		winner, seq, fresh := "", any(nil), 0
		for range clients {
			r := <-results
			var remote *bus.RemoteError
			switch {
			case r.err == nil && (winner == "" || winner == r.body && seq == r.answer["seq"]):
				winner, seq = r.body, r.answer["seq"]
				if r.answer["duplicate"] == nil {
					fresh++
				} else {
					repeats++
				}
			case r.err == nil:
				t.Errorf("round %d: both payloads are answered, at %v and %v", round, seq, r.answer["seq"])
			case !errors.As(r.err, &remote) || remote.Code != 409:
				t.Errorf("round %d: %v", round, r.err)
			}
		}
		if fresh == 0 {
			t.Errorf("round %d: got repeats only, want one answer at least that is none", round)
		}
	}
	if repeats == 0 {
		t.Errorf("got no repeat in %d rounds", rounds)
	}
	for _, s := range f.settled(3, at(rounds+1)) {
		if s.Learned != rounds {
			t.Errorf("%s learned %d of %d", s.Replica, s.Learned, rounds)
		}
	}
}

// TestALogKeepsItsSpecsNames: a spec whose label has the name of a reply's key
// begins no log, and a log that was made with it before is served.
func TestALogKeepsItsSpecsNames(t *testing.T) {
	f := newFleet(t)
	s := model.DefaultSpec()
	s.Label.Name = "predicted"
	refused := f.launch("a", s, nil, nil)
	select {
	case err := <-refused.err:
		if err == nil || !strings.Contains(err.Error(), "label predicted") {
			t.Errorf("got %v, want the label refused", err)
		}
	case <-time.After(patience):
		t.Fatal("a worker with no log started")
	}
	log, err := bus.OpenLog(
		t.Context(), f.nc,
		bus.LogConfig{Model: "penguins", Genesis: func() []byte { return model.NewGenesis(s, bus.NewID()) }},
	)
	if err != nil {
		t.Fatal(err)
	}
	event := strings.Replace(gentoo, `"species"`, `"predicted"`, 1)
	if _, err := log.Append(t.Context(), "penguins.learn", "", []byte(event)); err != nil {
		t.Fatal(err)
	}
	f.start("b", s)
	f.settled(1, func(s fleet.Status) bool { return s.Learned == 1 })
}
