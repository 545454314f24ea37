package serve

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// TestEveryReplyIsOfItsSequence: what was built for the one before is not said
// again.
func TestEveryReplyIsOfItsSequence(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	for seq := uint64(1); seq < 5; seq++ {
		r.fold(seq)
		for range 2 {
			got := r.ask("predict", row).reply()
			receipt, err := model.ParseReceipt(fmt.Sprint(got["receipt"]))
			if err != nil || receipt != r.model.Receipt() || got["seq"] != float64(seq) || got["learned"] != float64(seq-1) {
				t.Errorf(
					"at %d: got %v %v, want that sequence, %d learned, and the receipt %s", seq, got, err, seq-1,
					r.model.Receipt(),
				)
			}
		}
	}
}

// TestAReplyIsOfItsModel: another model at the same sequence says its own.
func TestAReplyIsOfItsModel(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.fold(3)
	r.ask("predict", row).want(map[string]any{"species": "Gentoo", "learned": 2})
	other := newRig(t, model.DefaultSpec())
	other.fold(1)
	for seq := uint64(2); seq <= 3; seq++ {
		data := []byte(adelie)
		if seq == 3 {
			data = []byte(`{}`)
		}
		other.apply(model.Message{Seq: seq, Subject: model.SubjectLearn, Data: data})
	}
	r.model = other.model
	got := r.ask("predict", row).want(map[string]any{"species": "Adelie", "learned": 1})
	if want := other.model.Receipt().String(); got["receipt"] != want {
		t.Errorf("got the receipt %v, want %s", got["receipt"], want)
	}
}

// TestMinSeqIsWaitedFor: no answer before that sequence, and then of it.
func TestMinSeqIsWaitedFor(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.fold(2)
	for seq := uint64(3); seq < 9; seq += 2 {
		var waiting []*asking
		for _, verb := range []string{"predict", "explain"} {
			a := r.ask(verb, row, headerMinSeq, fmt.Sprint(seq), headerTimeout, "1m")
			if a.answered() {
				t.Fatalf("asked for %d at %d: got %v, want no answer yet", seq, seq-1, a.reply())
			}
			waiting = append(waiting, a)
		}
		later := r.ask("predict", row, headerMinSeq, fmt.Sprint(seq+1), headerTimeout, "1m")
		r.fold(seq)
		for _, a := range waiting {
			a.want(map[string]any{"code": nil, "seq": seq})
		}
		if later.answered() {
			t.Fatalf("asked for %d: answered at %d", seq+1, seq)
		}
		r.fold(seq + 1)
		later.want(map[string]any{"code": nil, "seq": seq + 1})
	}
	r.ask("predict", row, headerMinSeq, "99", headerTimeout, "1ms").want(map[string]any{"code": 504})
}

// TestAFailedModelAnswersNothing: neither what comes nor what waits.
func TestAFailedModelAnswersNothing(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.fold(2)
	waiting := r.ask("predict", row, headerMinSeq, "3")
	r.model = nil
	r.Close()
	waiting.want(map[string]any{"code": 503})
	r.group = &group{server: r.Server, ctx: t.Context()}
	for _, verb := range []string{"predict", "explain"} {
		r.ask(verb, row).want(map[string]any{"code": 503})
	}
	r.ask("teach", gentoo).want(map[string]any{"code": 503})
}

// TestAComponentThatPanics while it predicts: that request is refused, and the
// next one is answered.
func TestAComponentThatPanics(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.fold(3)
	whole := r.model
	r.model = &model.Model{} // without a program
	r.ask("predict", row).want(map[string]any{"code": 500})
	r.model = whole
	r.ask("predict", row).want(map[string]any{"code": nil, "species": "Gentoo"})
}

// ledger is a log that takes what comes, and is read by the test.
type ledger struct {
	Log
	ack bus.Ack
}

func (l *ledger) Append(context.Context, string, string, []byte, ...bus.Guard) (bus.Ack, error) {
	return l.ack, nil
}

func (l *ledger) Limit() int { return bus.MaxMessage }

func (l *ledger) Message(context.Context, uint64) (*bus.Message, error) {
	return nil, errNoMessage
}

// TestTaughtOnceItIsApplied: an acknowledgement is no answer yet.
func TestTaughtOnceItIsApplied(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.cfg.Log = &ledger{ack: bus.Ack{Seq: 3}}
	r.group = &group{server: r.Server, ctx: t.Context()}
	r.fold(2)
	a := r.ask("teach", gentoo, headerID, "x", headerTimeout, "1m")
	for deadline := time.Now().Add(patience); r.parking.len() == 0; {
		if a.answered() || time.Now().After(deadline) {
			t.Fatalf("at 2 it does not wait for 3: %v", a.reply())
		}
	}
	r.apply(model.Message{Seq: 3, Subject: model.SubjectLearn, ID: "x", Data: []byte(gentoo), Time: 3})
	a.want(map[string]any{"seq": 3, "learned": 2, "duplicate": nil})
}

// TestALogThatIsAnotherNow: a teach that a log acknowledges which this replica
// has not folded is never called rejected, and never learned.
func TestALogThatIsAnotherNow(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.group = &group{server: r.Server, ctx: t.Context()}
	r.fold(2)
	for _, ack := range []bus.Ack{{Seq: 2}, {Seq: 2, Duplicate: true}} {
		for _, log := range []Log{&ledger{ack: ack}, &elsewhere{ledger{ack: ack}}} {
			r.cfg.Log = log
			r.onLog = func() (bool, error) { return false, nil }
			got := r.ask("teach", adelie, headerID, "one").want(map[string]any{"code": 503})
			if text := fmt.Sprint(got["error"]); !bytes.Contains(
				[]byte(text), []byte("ask again with the same Nats-Msg-Id (one)"),
			) {
				t.Errorf("%T, %+v: got %s, want that it can be asked again", log, ack, text)
			}
		}
	}
	r.ends(t)
}

// elsewhere is a log whose server was given another history than the one that
// is replayed.
type elsewhere struct{ ledger }

func (*elsewhere) Message(_ context.Context, seq uint64) (*bus.Message, error) {
	return &bus.Message{Seq: seq, Subject: "penguins.learn", Data: []byte(adelie)}, nil
}

// plain is a request for a prediction.
type plain struct {
	t    *testing.T
	data []byte
	body []byte
}

func (p *plain) Keep()                              { p.t.Error("it is kept") }
func (p *plain) Data() []byte                       { return p.data }
func (p *plain) HeaderNames() []string              { return nil }
func (p *plain) Header(string) string               { return "" }
func (p *plain) Reply(body []byte)                  { p.body = append(p.body[:0], body...) }
func (p *plain) Error(_ int, text string, _ []byte) { p.t.Error(text) }

// TestAPredictionAllocatesNothing: from the bytes of a request to the bytes of
// its answer.
func TestAPredictionAllocatesNothing(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	r.fold(5)
	req := &plain{t: t, data: []byte(row)}
	if n := testing.AllocsPerRun(1000, func() { r.predict(req) }); n != 0 && !raced() {
		t.Errorf("got %v allocations, want 0", n)
	}
	if !bytes.HasPrefix(req.body, []byte(`{"species":"Gentoo","predicted":`)) {
		t.Errorf("got %s, want a prediction of Gentoo", req.body)
	}
}

// raced reports whether the race detector runs, which makes pools forget.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestAnswersOfALesson: what the fold said decides, event by event; one bad
// event, and the whole is no success.
func TestAnswersOfALesson(t *testing.T) {
	learned := model.Outcome{
		Verdict: model.Learned,
		Answer:  model.Answer{Seq: 5, Learned: 3, Label: model.Target{Type: model.Category, Text: "Gentoo"}},
	}
	repeat := model.Outcome{
		Verdict: model.Duplicate,
		Answer:  model.Answer{Seq: 2, Learned: 1, Label: model.Target{Type: model.Category, Text: "Gentoo"}},
	}
	taken := repeat
	taken.Conflict = true
	rejected := model.Outcome{Verdict: model.Rejected, Problems: []model.Problem{{Type: "missing"}}}
	for _, c := range []struct {
		outcomes  []model.Outcome
		code      int
		seq       float64
		duplicate any
	}{
		{[]model.Outcome{learned}, 0, 5, nil},
		{[]model.Outcome{repeat}, 0, 2, true},
		{[]model.Outcome{taken}, 409, 0, nil},
		{[]model.Outcome{rejected}, 422, 0, nil},
		{[]model.Outcome{{}}, 422, 0, nil},
		{[]model.Outcome{repeat, learned}, 0, 5, nil},
		{[]model.Outcome{repeat, repeat}, 0, 5, true},
		{[]model.Outcome{learned, taken}, 409, 0, nil},
		{[]model.Outcome{rejected, learned}, 422, 0, nil},
		{[]model.Outcome{rejected, taken}, 409, 0, nil},
	} {
		r, a := newRig(t, model.DefaultSpec()), newAsking(t, "")
		r.answer(&lesson{req: a, batch: len(c.outcomes) > 1}, 5, c.outcomes)
		got := a.reply()
		if a.code != c.code || c.code == 0 && (got["seq"] != c.seq || got["duplicate"] != c.duplicate) {
			t.Errorf(
				"%v: got %d %s, want %d, sequence %v, duplicate %v", c.outcomes, a.code, a.body, c.code, c.seq,
				c.duplicate,
			)
		}
		if _, results := got["results"]; results != (len(c.outcomes) > 1) {
			t.Errorf("%v: got %s, want results of a batch alone", c.outcomes, a.body)
		}
	}
}

// TestLessonsAreBounded, in number and in bytes.
func TestLessonsAreBounded(t *testing.T) {
	var d load
	for i := range maxLessons + 1 {
		if _, _, ok := d.add(0); ok != (i < maxLessons) {
			t.Fatalf("lesson %d: got taken %t, want %t", i, ok, i < maxLessons)
		}
	}
	d.remove(0)
	if _, _, ok := d.add(maxLessonBytes + 1); ok {
		t.Error("too many bytes are taken")
	}
	if lessons, size, ok := d.add(maxLessonBytes); lessons != maxLessons || size != maxLessonBytes || !ok {
		t.Errorf("got %d lessons of %d bytes, taken %t, want %d, %d, true", lessons, size, ok, maxLessons, maxLessonBytes)
	}
}

// TestProbabilitiesAreGivenWhereTheyAreAskedFor: those of all classes, in the
// reply as everywhere; and a request for something else is refused.
func TestProbabilitiesAreGivenWhereTheyAreAskedFor(t *testing.T) {
	r := newRig(t, model.DefaultSpec())
	if got := string(r.ask("predict", row, headerInclude, "proba").body); !strings.HasPrefix(got, `{"species":null,"predicted":1,"proba":{},"learned":0,`) {
		t.Errorf("before anything was learned: %s", got)
	}
	r.fold(2)
	r.ask("predict", row).want(map[string]any{"proba": nil})
	got := r.ask("predict", row, headerInclude, "proba").want(map[string]any{"species": "Gentoo", "seq": 2})
	if proba, ok := got["proba"].(map[string]any); !ok || len(proba) != 1 || proba["Gentoo"] != 1.0 {
		t.Errorf("got %v", got)
	}
	if err := r.Join(); err != nil {
		t.Fatal(err)
	}
	defer r.Leave()
	p, err := r.Predict(t.Context(), Request{Data: []byte(row), Header: func(name string) string {
		return map[string]string{headerInclude: "proba"}[name]
	}})
	if err != nil || !strings.HasSuffix(string(p.AppendBare(nil)), `,"proba":{"Gentoo":1},"learned":1}`) {
		t.Errorf("%s %v", p.AppendBare(nil), err)
	}
	r.ask("predict", row, headerInclude, "score").want(map[string]any{
		"code": 422, "detail": "[map[loc:[header Lockstep-Include] msg:Input should be 'proba' type:literal_error]]",
	})
}
