package serve

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/bus/bustest"
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

// gated is a server behind a gate, whose first teach is on its way.
func gated(t *testing.T, spec *model.Spec) (r *rig, memory *bustest.Log, g *gate, first *asking, pass func()) {
	t.Helper()
	memory = bustest.NewLog("penguins", 1, model.NewGenesis(spec, "i"))
	g = newGate(memory)
	r = newRig(t, spec)
	r.tail(memory, g)
	first = r.ask("teach", gentoo)
	a := g.next(t)
	if a.data != gentoo {
		t.Fatalf("a lone teach is sent as %s", a.data)
	}
	return r, memory, g, first, func() { close(a.pass) }
}

// waits returns once so many teaches wait.
func (r *rig) waits(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		r.group.mu.Lock()
		got := len(r.group.waiting)
		r.group.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want %d", got, n)
		}
	}
}

// ends returns once nothing is kept of any teach: anyone who answers one ends it
// after that.
func (r *rig) ends(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		r.lessons.mu.Lock()
		lessons, size := r.lessons.lessons, r.lessons.bytes
		r.lessons.mu.Unlock()
		r.outcomes.mu.Lock()
		ids := len(r.outcomes.byID)
		r.outcomes.mu.Unlock()
		if lessons == 0 && size == 0 && ids == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lessons of %d bytes are not ended, %d ids are awaited still", lessons, size, ids)
		}
	}
}

// TestTeachesThatWaitShareAMessage: in their order, and each gets its own
// answer. What must be stored alone is.
func TestTeachesThatWaitShareAMessage(t *testing.T) {
	r, _, g, first, pass := gated(t, model.DefaultSpec())
	var asked []*asking
	for i, body := range []string{adelie, " " + gentoo + "\n", `{"id":"own",` + gentoo[1:], `{"id":"own",` + gentoo[1:], `{"id":"own",` + adelie[1:]} {
		asked = append(asked, r.ask("teach", body))
		r.waits(t, i+1)
	}
	deep := `{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `,` + gentoo[1:]
	alone := map[string]*asking{
		`[` + adelie + `]`: r.ask("teach", `[`+adelie+`]`),
		deep:               r.ask("teach", deep),
	}
	named := r.ask("teach", adelie, "Nats-Msg-Id", "mine")
	for range 3 {
		a := g.next(t)
		if _, ok := alone[a.data]; !ok && (a.id != "mine" || a.data != adelie) {
			t.Errorf("sent alone: %+v", a)
		}
	}
	r.waits(t, 5)
	pass()
	first.want(map[string]any{"seq": 2, "index": nil, "learned": 1})
	pack := g.next(t)
	if want := "[" + adelie + ", " + gentoo + "\n,"; !strings.HasPrefix(pack.data, want) ||
		!strings.HasSuffix(pack.data, adelie[1:]+"]") {
		t.Errorf("sent together: %s", pack.data)
	}
	close(pack.pass)
	got := asked[0].want(
		map[string]any{
			"seq": 3, "index": nil, "learned": 2,
			"status": "learned Adelie. Initially predicted Gentoo", "duplicate": nil, "predicted": 0,
			"stream": "PENGUINS", "results": nil,
		},
	)
	if _, err := model.ParseReceipt(fmt.Sprint(got["receipt"])); err != nil {
		t.Errorf("receipt: %v", err)
	}
	asked[1].want(
		map[string]any{"seq": 3, "index": 1, "learned": 3, "status": "learned Gentoo. Initially predicted Gentoo"},
	)
	asked[2].want(map[string]any{"seq": 3, "index": 2, "learned": 4, "duplicate": nil})
	asked[3].want(map[string]any{"seq": 3, "index": 2, "learned": 4, "duplicate": true})
	asked[4].want(
		map[string]any{
			"code":   409,
			"detail": "[map[loc:[id] msg:The id is taken by an event with another payload type:id_taken]]",
		},
	)
	close(g.open)
	for body, a := range alone {
		if body == deep {
			a.want(map[string]any{"code": nil, "index": nil})
		} else {
			a.want(map[string]any{"code": nil, "status": "learned 1 event"})
		}
	}
	named.want(map[string]any{"code": nil, "duplicate": nil})
	r.ends(t)
}

// TestAGroupIsBounded in events, and in bytes by what the log takes.
func TestAGroupIsBounded(t *testing.T) {
	r, _, g, first, pass := gated(t, model.DefaultSpec())
	var asked []*asking
	for range 300 {
		asked = append(asked, r.ask("teach", gentoo))
	}
	r.waits(t, 300)
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
		asked = append(asked, r.ask("teach", long))
	}
	r.waits(t, 6)
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
	r, memory, g, first, _ := gated(t, model.DefaultSpec())
	memory.Largest(len(gentoo))
	var asked []*asking
	for range 3 {
		asked = append(asked, r.ask("teach", gentoo))
	}
	r.waits(t, 3)
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
	spec := model.DefaultSpec()
	spec.Inputs[0].MaxValues = 2
	r, _, g, first, _ := gated(t, spec)
	on := func(island string) *asking {
		return r.ask("teach", strings.Replace(adelie, "Biscoe", island, 1))
	}
	a := on("Dream")
	r.waits(t, 1)
	b := on("Torgersen")
	r.waits(t, 2)
	c := on("Dream")
	r.waits(t, 3)
	close(g.open)
	first.want(map[string]any{"seq": 2})
	a.want(map[string]any{"seq": 3, "index": nil, "learned": 2})
	b.want(
		map[string]any{
			"code": 422, "results": nil,
			"detail": "[map[loc:[attributes island] msg:There is room for 2 different values, and this is one more " +
				"type:too_many_values]]",
		},
	)
	c.want(map[string]any{"seq": 3, "index": 2, "learned": 3})
}

// TestPatienceOfAGroup: who waits no longer than it said is answered then,
// whatever the others of its message said; what was not sent never is.
func TestPatienceOfAGroup(t *testing.T) {
	r, _, g, first, pass := gated(t, model.DefaultSpec())
	never := r.ask("teach", adelie, "Lockstep-Timeout", "50ms")
	if got := fmt.Sprint(never.want(map[string]any{"code": 504})); !strings.Contains(got, "not stored") {
		t.Errorf("answered %v", got)
	}
	r.waits(t, 0)
	short := r.ask("teach", gentoo, "Lockstep-Timeout", "2s")
	r.waits(t, 1)
	long := r.ask("teach", gentoo, "Lockstep-Timeout", "15s")
	r.waits(t, 2)
	pass()
	first.want(map[string]any{"seq": 2})
	g.next(t)
	if got := fmt.Sprint(short.want(map[string]any{"code": 504})); !strings.Contains(got, "may be stored") ||
		strings.Contains(got, "same Nats-Msg-Id") {
		t.Errorf("answered %v", got)
	}
	close(g.open)
	long.want(map[string]any{"seq": 3, "index": 1, "learned": 3})
	r.ends(t)
}

// TestAStoppingWorkerAnswersAGroup: both what is on its way and what waits.
func TestAStoppingWorkerAnswersAGroup(t *testing.T) {
	r, _, g, first, _ := gated(t, model.DefaultSpec())
	asked := []*asking{first}
	for range 5 {
		asked = append(asked, r.ask("teach", adelie))
	}
	r.waits(t, 5)
	left := make(chan struct{})
	go func() { r.Leave(); close(left) }()
	close(g.open)
	for _, a := range asked {
		a.want(map[string]any{"code": nil, "stream": "PENGUINS"})
	}
	<-left
}

// TestAWorkerThatGivesUpAnswersAGroup: what is on its way may be stored, and
// what waits is not.
func TestAWorkerThatGivesUpAnswersAGroup(t *testing.T) {
	r, _, g, first, _ := gated(t, model.DefaultSpec())
	asked := []*asking{r.ask("teach", adelie), r.ask("teach", adelie)}
	r.waits(t, 2)
	r.giveUp()
	if got := fmt.Sprint(first.want(map[string]any{"code": 503})); !strings.Contains(got, "may be stored") {
		t.Errorf("answered %v", got)
	}
	for _, a := range asked {
		if got := fmt.Sprint(a.want(map[string]any{"code": 503})); !strings.Contains(got, "not stored") {
			t.Errorf("answered %v", got)
		}
	}
	r.waits(t, 0)
	if len(g.came) > 0 {
		t.Errorf("sent: %v", <-g.came)
	}
}

// TestTooLargeAfterALostAcknowledgement: what an earlier attempt may have
// stored is not called unstored, though the log takes no such message now.
func TestTooLargeAfterALostAcknowledgement(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	for err, want := range map[error]string{
		bus.ErrTooLarge: "may be stored",
		&bus.RefusedError{Code: 400, ErrCode: 10054, Err: bus.ErrTooLarge}: "not stored: split it",
	} {
		a := newAsking(t, adelie)
		l := &lesson{req: a, data: []byte(adelie)}
		r.unstored(newParcel(t.Context(), l), l, err)
		got := a.reply()
		if text := fmt.Sprint(got["error"]); !strings.Contains(text, want) || (a.code == 413) != (want != "may be stored") {
			t.Errorf("%T: got %d %s, want %q", err, a.code, text, want)
		}
	}
}
