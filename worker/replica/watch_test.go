package replica

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"lockstep/model"
	"lockstep/worker/fleet"
)

// folded is a model with a watch, and what feeds both.
type folded struct {
	t     testing.TB
	model *model.Model
	watch *watch
	lag   lag
	seq   atomic.Uint64
}

func newFolded(t testing.TB) *folded {
	m, err := model.New(model.DefaultSpec())
	if err != nil {
		t.Fatal(err)
	}
	f := &folded{t: t, model: m}
	f.lag.applied = &f.seq
	f.watch = newWatch(&f.lag)
	return f
}

// behind has so many messages follow the next one.
func (f *folded) behind(messages uint64) { f.lag.end.Store(f.model.Seq() + 1 + messages) }

func (f *folded) apply(data string) {
	seq := f.model.Seq() + 1
	subject := model.SubjectLearn
	if seq == 1 {
		subject, data = model.SubjectGenesis, string(model.NewGenesis(f.model.Spec(), "x"))
	}
	f.seq.Store(seq)
	f.watch.see(f.model, f.model.Apply(model.Message{Seq: seq, Subject: subject, Data: []byte(data)}), int64(seq))
}

// TestTheHistoryCountsEvents: a message of many events is no single point.
func TestTheHistoryCountsEvents(t *testing.T) {
	t.Parallel()
	f := newFolded(t)
	f.apply("")
	batch := "[" + strings.Repeat(gentoo+",", 99) + gentoo + "]"
	for range 3 {
		f.apply(batch)
	}
	if got, want := len(f.watch.points), 300; got != want {
		t.Fatalf("%d points, want %d", got, want)
	}
	for i, p := range f.watch.points {
		if got, want := p.Scored, uint64(i+1); got != want {
			t.Fatalf("point %d is after %d events, want %d", i, got, want)
		}
		if got, want := p.Seq, uint64(i/100+2); got != want {
			t.Fatalf("point %d is of message %d, want %d", i, got, want)
		}
	}
	for range 20 {
		f.apply(batch)
	}
	for _, p := range f.watch.points {
		if p.Scored%f.watch.stride != 0 {
			t.Fatalf("%+v with stride %d", p, f.watch.stride)
		}
	}
	if got, want := len(f.watch.points), 2300/8; f.watch.stride != 8 || got != want {
		t.Errorf("%d points with stride %d, want %d with 8", got, f.watch.stride, want)
	}
}

// TestTheHistoryIsBounded: however long the log, the points are few, after
// the same events on every replica, and evenly spread.
func TestTheHistoryIsBounded(t *testing.T) {
	t.Parallel()
	f := newFolded(t)
	generations := map[uint64]bool{}
	for range 5000 {
		f.apply(gentoo)
		if n := len(f.watch.points); n > maxPoints {
			t.Fatalf("%d points", n)
		}
		generations[f.watch.generation] = true
	}
	h := f.watch
	if h.stride != 16 || len(generations) != 5 || len(h.points) != 4999/16 {
		t.Errorf("stride %d, %d generations, %d points", h.stride, len(generations), len(h.points))
	}
	for i, p := range h.points {
		if p.Scored != uint64(i+1)*16 || p.Seq != p.Scored+1 {
			t.Fatalf("point %d is %+v", i, p)
		}
	}
	// From a snapshot in the middle of a stride on.
	restored, err := model.Restore(model.DefaultSpec(), f.model.AppendState(nil))
	if err != nil {
		t.Fatal(err)
	}
	before := h.generation
	h.reset(restored)
	f.model = restored
	for range 2000 {
		f.apply(gentoo)
	}
	if h.from != 5000 || h.generation <= before || h.points[0].Seq != 5000 || len(h.points) > maxPoints {
		t.Errorf("from %d, generation %d, first %+v of %d", h.from, h.generation, h.points[0], len(h.points))
	}
	for _, p := range h.points[1:] {
		if p.Scored%h.stride != 0 {
			t.Fatalf("%+v with stride %d", p, h.stride)
		}
	}
}

// TestTheTailIsOfTheLogsEnd: verdicts are kept only near the log's end, the
// newest ones.
func TestTheTailIsOfTheLogsEnd(t *testing.T) {
	t.Parallel()
	f := newFolded(t)
	f.behind(tailChains + 9) // the last of the ten, tailChains
	for range 10 {
		f.apply(gentoo)
	}
	if f.watch.saying != 0 || f.watch.chains[5].seq != 0 {
		t.Error("kept what many messages follow")
	}
	f.behind(tailEvents)
	f.apply(gentoo)
	if f.watch.saying != 0 || f.watch.chains[11].seq != 11 {
		t.Error("of what more messages follow than the tail holds, only the chains are kept")
	}
	f.behind(0)
	f.apply(strings.Replace(gentoo, "Gentoo", "Adelie", 1))
	f.apply(`{"attributes":{}}`)
	f.apply("[" + strings.Repeat(gentoo+",", 99) + gentoo + "]")
	h := f.watch
	if h.saying != 2+tailEvents {
		t.Fatalf("%d kept", h.saying)
	}
	last := h.said[(h.saying-1)%tailEvents]
	if last.Seq != 14 || last.Index != 99 || last.Verdict != model.Learned || last.Label != "Gentoo" ||
		last.Proba == 0 ||
		last.Stored != 14 {
		t.Errorf("%+v", last)
	}
	f.apply(`{}`)
	if last := h.said[(h.saying-1)%tailEvents]; last.Verdict != model.Rejected ||
		!strings.Contains(last.Problem, "Field required") ||
		last.Index != -1 {
		t.Errorf("%+v", last)
	}
}

// TestWatchingCostsTheFoldNothing that could be heard: no allocation.
func TestWatchingCostsTheFoldNothing(t *testing.T) {
	f := newFolded(t)
	for range 600 {
		f.apply(gentoo)
	}
	result := f.model.Apply(model.Message{Seq: f.model.Seq() + 1, Subject: model.SubjectLearn, Data: []byte(gentoo)})
	if n := testing.AllocsPerRun(1000, func() { f.watch.see(f.model, result, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWatch(b *testing.B) {
	for _, lag := range []uint64{0, 1 << 20} {
		b.Run(fmt.Sprint("lag=", lag), func(b *testing.B) {
			f := newFolded(b)
			for range 600 {
				f.apply(gentoo)
			}
			f.behind(lag)
			result := f.model.Apply(model.Message{Seq: f.model.Seq() + 1, Subject: model.SubjectLearn, Data: []byte(gentoo)})
			b.ReportAllocs()
			for b.Loop() {
				f.watch.see(f.model, result, 1)
			}
		})
	}
}

// TestCompare: what another's chains at its own sequence mean.
func TestCompare(t *testing.T) {
	t.Parallel()
	f := newFolded(t)
	for range 2000 {
		f.apply(gentoo)
	}
	own := fleet.Heartbeat{
		Identity: fleet.Identity{Incarnation: "i", Contract: "c", Encoding: "e"}, Attested: 5, Digest: "d",
	}
	at := func(seq uint64) fleet.Heartbeat {
		p := own
		c := f.watch.chains[seq%tailChains]
		p.Seq, p.LogChain, p.StateChain = seq, hexOf(c.log), hexOf(c.state)
		return p
	}
	for _, c := range []struct {
		seq    uint64
		change func(*fleet.Heartbeat)
		want   fleet.Agreement
	}{
		{2000, func(*fleet.Heartbeat) {}, fleet.Agrees},
		{1500, func(*fleet.Heartbeat) {}, fleet.Agrees},
		{1500, func(p *fleet.Heartbeat) { p.Seq -= tailChains }, fleet.Unknown},
		{2000, func(p *fleet.Heartbeat) { p.Seq++ }, fleet.Unknown},
		{2000, func(p *fleet.Heartbeat) { p.StateChain = "x" }, fleet.OtherState},
		{2000, func(p *fleet.Heartbeat) { p.LogChain = "x" }, fleet.OtherLog},
		{2000, func(p *fleet.Heartbeat) { p.Digest = "x" }, fleet.OtherDigest},
		{2000, func(p *fleet.Heartbeat) { p.Attested, p.Digest = 9, "x" }, fleet.Agrees},
		{2000, func(p *fleet.Heartbeat) { p.Incarnation = "x" }, fleet.Incomparable},
		{2000, func(p *fleet.Heartbeat) { p.Contract = "x" }, fleet.Incomparable},
	} {
		p := at(c.seq)
		c.change(&p)
		if got := fleet.Compare(&p, &own, f.watch.chainsAt); got != c.want {
			t.Errorf("%+v: got %d, want %d", p, got, c.want)
		}
	}
}
