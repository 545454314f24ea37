package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/model"
)

// gate is the real log, but that each append waits until it may pass.
type gate struct {
	Log
	limit int           // 0: the log's own
	came  chan appended // those that wait
	open  chan struct{} // closed: all may pass
}

// appended is a message at the gate.
type appended struct {
	id   string
	data string
	pass chan struct{} // closed: it may pass
}

func newGate(log Log) *gate {
	return &gate{Log: log, came: make(chan appended, 1000), open: make(chan struct{})}
}

func (g *gate) Append(ctx context.Context, subject, id string, data []byte, guards ...bus.Guard) (bus.Ack, error) {
	a := appended{id, string(data), make(chan struct{})}
	g.came <- a
	select {
	case <-a.pass:
	case <-g.open:
	case <-ctx.Done():
		return bus.Ack{}, ctx.Err()
	}
	return g.Log.Append(ctx, subject, id, data, guards...)
}

func (g *gate) Limit() int {
	if g.limit > 0 {
		return g.limit
	}
	return g.Log.Limit()
}

// next is the next message that is on its way.
func (g *gate) next(t *testing.T) appended {
	t.Helper()
	select {
	case a := <-g.came:
		return a
	case <-time.After(patience):
		t.Fatal("nothing is on its way")
		return appended{}
	}
}

// gated starts a worker behind a gate, whose first teach is on its way.
func (f *testFleet) gated(spec *model.Spec) (w *Worker, g *gate, first *asking, pass func()) {
	f.t.Helper()
	log, err := bus.OpenLog(f.t.Context(), f.nc, bus.LogConfig{Model: "penguins", Genesis: func() []byte { return model.NewGenesis(spec, "i") }})
	if err != nil {
		f.t.Fatal(err)
	}
	g = newGate(log)
	w = f.runWith(g, spec)
	first = f.askLater("teach", gentoo)
	a := g.next(f.t)
	if a.data != gentoo {
		f.t.Fatalf("a lone teach is sent as %s", a.data)
	}
	return w, g, first, func() { close(a.pass) }
}

// asking is a request that is on its way.
type asking struct {
	t      *testing.T
	answer chan map[string]any
}

// askLater asks without waiting. An error's answer is its body, with "code".
func (f *testFleet) askLater(verb, body string, headers ...string) *asking {
	a := &asking{f.t, make(chan map[string]any, 1)}
	go func() {
		got, err := f.ask(verb, body, headers...)
		var remote *bus.RemoteError
		if errors.As(err, &remote) {
			err = json.Unmarshal(remote.Body, &got)
			got["code"] = float64(remote.Code)
		}
		if err != nil {
			got = map[string]any{"error": err.Error()}
		}
		a.answer <- got
	}()
	return a
}

// want waits for the answer, and compares what it has under some keys.
func (a *asking) want(wants map[string]any) map[string]any {
	a.t.Helper()
	select {
	case got := <-a.answer:
		for key, want := range wants {
			if fmt.Sprint(got[key]) != fmt.Sprint(want) {
				a.t.Errorf("%s: got %v, want %v, in %v", key, got[key], want, got)
			}
		}
		return got
	case <-time.After(patience):
		a.t.Fatal("no answer")
		return nil
	}
}

// waits returns once so many teaches wait.
func (w *Worker) waits(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		w.group.mu.Lock()
		got := len(w.group.waiting)
		w.group.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want %d", got, n)
		}
	}
}

// TestTeachesThatWaitShareAMessage: in their order, and each gets its own
// answer. What must be stored alone is.
func TestTeachesThatWaitShareAMessage(t *testing.T) {
	f := newFleet(t)
	w, g, first, pass := f.gated(model.DefaultSpec())
	var asked []*asking
	for i, body := range []string{adelie, " " + gentoo + "\n", `{"id":"own",` + gentoo[1:], `{"id":"own",` + gentoo[1:], `{"id":"own",` + adelie[1:]} {
		asked = append(asked, f.askLater("teach", body))
		w.waits(t, i+1)
	}
	deep := `{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `,` + gentoo[1:]
	alone := map[string]*asking{
		`[` + adelie + `]`: f.askLater("teach", `[`+adelie+`]`),
		deep:               f.askLater("teach", deep),
	}
	named := f.askLater("teach", adelie, "Nats-Msg-Id", "mine")
	for range 3 {
		a := g.next(t)
		if _, ok := alone[a.data]; !ok && (a.id != "mine" || a.data != adelie) {
			t.Errorf("sent alone: %+v", a)
		}
	}
	w.waits(t, 5)
	pass()
	first.want(map[string]any{"seq": 2, "index": nil, "learned": 1})
	pack := g.next(t)
	if want := "[" + adelie + ", " + gentoo + "\n,"; !strings.HasPrefix(pack.data, want) || !strings.HasSuffix(pack.data, adelie[1:]+"]") {
		t.Errorf("sent together: %s", pack.data)
	}
	close(pack.pass)
	got := asked[0].want(map[string]any{"seq": 3, "index": nil, "learned": 2, "status": "learned Adelie. Initially predicted Gentoo", "duplicate": nil, "predicted": 0, "stream": "PENGUINS", "results": nil})
	if _, err := model.ParseReceipt(fmt.Sprint(got["receipt"])); err != nil {
		t.Errorf("receipt: %v", err)
	}
	asked[1].want(map[string]any{"seq": 3, "index": 1, "learned": 3, "status": "learned Gentoo. Initially predicted Gentoo"})
	asked[2].want(map[string]any{"seq": 3, "index": 2, "learned": 4, "duplicate": nil})
	asked[3].want(map[string]any{"seq": 3, "index": 2, "learned": 4, "duplicate": true})
	asked[4].want(map[string]any{"code": 409, "detail": "[map[loc:[id] msg:The id is taken by an event with another payload type:id_taken]]"})
	close(g.open)
	for body, a := range alone {
		if body == deep {
			a.want(map[string]any{"code": nil, "index": nil})
		} else {
			a.want(map[string]any{"code": nil, "status": "learned 1 event"})
		}
	}
	named.want(map[string]any{"code": nil, "duplicate": nil})
	if n, size, _ := w.lessons.add(0); n != 1 || size != 0 {
		t.Errorf("%d lessons of %d bytes are not ended", n-1, size)
	}
	if n := len(w.replica.awaited); n != 0 {
		t.Errorf("%d ids are awaited still", n)
	}
}

// TestAGroupIsBounded in events, and in bytes by what the log takes.
func TestAGroupIsBounded(t *testing.T) {
	f := newFleet(t)
	w, g, first, pass := f.gated(model.DefaultSpec())
	var asked []*asking
	for range 300 {
		asked = append(asked, f.askLater("teach", gentoo))
	}
	w.waits(t, 300)
	pass()
	first.want(nil)
	a := g.next(t)
	if n := strings.Count(a.data, `"species"`); n != 256 {
		t.Errorf("%d events in a message, want 256", n)
	}
	close(a.pass)
	a = g.next(t)
	if n := strings.Count(a.data, `"species"`); n != 44 {
		t.Errorf("%d events in a message, want 44", n)
	}
	// The last 44 are still on their way.
	long := `{"x":"` + strings.Repeat("x", 60_000) + `",` + gentoo[1:]
	for range 6 {
		asked = append(asked, f.askLater("teach", long))
	}
	w.waits(t, 6)
	close(a.pass)
	if a = g.next(t); strings.Count(a.data, `"species"`) != 4 || len(a.data) > maxGroupBytes {
		t.Errorf("a message of %d bytes", len(a.data))
	}
	g.limit = 2*(len(long)+len("[]")) - 1 // none has company now
	for range 2 {
		close(a.pass)
		if a = g.next(t); a.data != long {
			t.Errorf("a message of %d bytes", len(a.data))
		}
	}
	close(a.pass)
	for _, a := range asked {
		a.want(map[string]any{"code": nil, "duplicate": nil})
	}
}

// TestARefusedGroupGoesAlone: what is too much together is learned one by one.
func TestARefusedGroupGoesAlone(t *testing.T) {
	f := newFleet(t)
	w, g, first, _ := f.gated(model.DefaultSpec())
	f.edit(func(c *jetstream.StreamConfig) { c.MaxMsgSize = int32(len(gentoo)) + 100 }) // and headers
	var asked []*asking
	for range 3 {
		asked = append(asked, f.askLater("teach", gentoo))
	}
	w.waits(t, 3)
	close(g.open)
	first.want(map[string]any{"seq": 2})
	seqs := map[any]bool{}
	for _, a := range asked {
		seqs[a.want(map[string]any{"code": nil, "index": nil, "duplicate": nil})["seq"]] = true
	}
	if len(seqs) != 3 {
		t.Errorf("learned at %v", seqs)
	}
}

// TestOneOfAGroupIsRejected by the fold: that is its own client's answer, as if
// it had come alone.
func TestOneOfAGroupIsRejected(t *testing.T) {
	f := newFleet(t)
	spec := model.DefaultSpec()
	spec.Inputs[0].MaxValues = 2
	w, g, first, _ := f.gated(spec)
	on := func(island string) *asking {
		return f.askLater("teach", strings.Replace(adelie, "Biscoe", island, 1))
	}
	a := on("Dream")
	w.waits(t, 1)
	b := on("Torgersen")
	w.waits(t, 2)
	c := on("Dream")
	w.waits(t, 3)
	close(g.open)
	first.want(map[string]any{"seq": 2})
	a.want(map[string]any{"seq": 3, "index": nil, "learned": 2})
	b.want(map[string]any{"code": 422, "results": nil, "detail": "[map[loc:[attributes island] msg:There is room for 2 different values, and this is one more type:too_many_values]]"})
	c.want(map[string]any{"seq": 3, "index": 2, "learned": 3})
}

// TestPatienceOfAGroup: who waits no longer than it said is answered then,
// whatever the others of its message said; what was not sent never is.
func TestPatienceOfAGroup(t *testing.T) {
	f := newFleet(t)
	w, g, first, pass := f.gated(model.DefaultSpec())
	never := f.askLater("teach", adelie, "Lockstep-Timeout", "50ms")
	if got := fmt.Sprint(never.want(map[string]any{"code": 504})); !strings.Contains(got, "not stored") {
		t.Errorf("answered %v", got)
	}
	w.waits(t, 0)
	short := f.askLater("teach", gentoo, "Lockstep-Timeout", "2s")
	w.waits(t, 1)
	long := f.askLater("teach", gentoo, "Lockstep-Timeout", "15s")
	w.waits(t, 2)
	pass()
	first.want(map[string]any{"seq": 2})
	g.next(t)
	if got := fmt.Sprint(short.want(map[string]any{"code": 504})); !strings.Contains(got, "may be stored") || strings.Contains(got, "same Nats-Msg-Id") {
		t.Errorf("answered %v", got)
	}
	close(g.open)
	long.want(map[string]any{"seq": 3, "index": 1, "learned": 3})
	if n, size, _ := w.lessons.add(0); n != 1 || size != 0 {
		t.Errorf("%d lessons of %d bytes are not ended", n-1, size)
	}
}

// TestAStoppingWorkerAnswersAGroup: both what is on its way and what waits.
func TestAStoppingWorkerAnswersAGroup(t *testing.T) {
	f := newFleet(t)
	w, g, first, _ := f.gated(model.DefaultSpec())
	asked := []*asking{first}
	for range 5 {
		asked = append(asked, f.askLater("teach", adelie))
	}
	w.waits(t, 5)
	left := make(chan struct{})
	go func() { w.drain(); close(left) }()
	close(g.open)
	for _, a := range asked {
		a.want(map[string]any{"code": nil, "stream": "PENGUINS"})
	}
	<-left
}

// TestAWorkerThatGivesUpAnswersAGroup: what is on its way may be stored, and
// what waits is not.
func TestAWorkerThatGivesUpAnswersAGroup(t *testing.T) {
	f := newFleet(t)
	w, g, first, _ := f.gated(model.DefaultSpec())
	asked := []*asking{f.askLater("teach", adelie), f.askLater("teach", adelie)}
	w.waits(t, 2)
	w.giveUp()
	if got := fmt.Sprint(first.want(map[string]any{"code": 503})); !strings.Contains(got, "may be stored") {
		t.Errorf("answered %v", got)
	}
	for _, a := range asked {
		if got := fmt.Sprint(a.want(map[string]any{"code": 503})); !strings.Contains(got, "not stored") {
			t.Errorf("answered %v", got)
		}
	}
	w.waits(t, 0)
	if len(g.came) > 0 {
		t.Errorf("sent: %v", <-g.came)
	}
}

// TestGuardsOfATeach: JetStream's guards hold for a teach, or it is refused;
// no header that JetStream acts upon is ignored.
func TestGuardsOfATeach(t *testing.T) {
	f := newFleet(t, "a")
	const last = "Nats-Expected-Last-Sequence"
	subject := "Nats-Expected-Last-Subject-Sequence"
	ok := func(seq int, headers ...string) {
		t.Helper()
		if got, err := f.ask("teach", gentoo, headers...); err != nil || fmt.Sprint(got["seq"]) != fmt.Sprint(seq) {
			t.Errorf("%v: got %v %v, want sequence %d", headers, got, err, seq)
		}
	}
	refused := func(code int, text string, headers ...string) {
		t.Helper()
		f.refused(code, "teach", gentoo, headers, text)
		f.refused(code, "teach", "["+gentoo+"]", headers, text)
	}
	refused(400, `"err_code":10060,"description":"expected stream does not match"`, "Nats-Expected-Stream", "OTHER")
	ok(2, "Nats-Expected-Stream", "PENGUINS")
	refused(400, `"err_code":10071,"description":"wrong last sequence: 2"`, last, "1")
	refused(400, `"err_code":10071`, last, "two")
	refused(400, `"err_code":10071`, subject, "7")
	refused(400, `"err_code":10071`, subject, "2", last, "1")
	refused(400, `"err_code":10193`, subject+"-Subject", "penguins.learn")
	ok(3, last, "2", "Nats-Msg-Id", "x")
	ok(4, subject, "3", last, "3")
	ok(5, subject, "1", subject+"-Subject", "penguins.ctl.genesis")
	for _, name := range []string{
		"Nats-Expected-Last-Msg-Id", "Nats-TTL", "Nats-Rollup", "Nats-Incr", "Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-TTL", "Nats-Scheduler",
		"Nats-Schedule-Next", "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit", "Nats-Stream-Source", "Nats-Required-Api-Level",
		"Nats-Counter-Sources", "nats-expected-last-sequence", "NATS-MSG-ID", "Nats-Of-Tomorrow",
	} {
		refused(422, fmt.Sprintf(`"loc":["header",%q]`, name), name, "1")
	}
	for _, name := range []string{"Nats-Request-Info", "Nats-Sequence", "X-Nats-TTL", "Natsomething"} {
		if _, err := f.ask("teach", gentoo, name, "1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, s := range f.settled(1, at(9)) {
		if s.Learned != 8 || s.Rejected != 0 {
			t.Errorf("%d are learned", s.Learned)
		}
	}
	// JetStream's own clients read the refusal as theirs.
	_, err := f.js.Publish(t.Context(), "penguins.teach", []byte(gentoo), jetstream.WithExpectLastSequence(1))
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		t.Errorf("js.Publish: %v", err)
	}
	if ack, err := f.js.Publish(t.Context(), "penguins.teach", []byte(gentoo), jetstream.WithExpectLastSequence(9), jetstream.WithExpectStream("PENGUINS")); err != nil || ack.Sequence != 10 {
		t.Errorf("js.Publish: %v %v", ack, err)
	}
}
