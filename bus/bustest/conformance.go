package bustest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"lockstep/bus"
)

// Subject is a log under test, of the model "m", that holds its genesis
// alone.
type Subject struct {
	Log interface {
		Append(ctx context.Context, subject, id string, data []byte, guards ...bus.Guard) (bus.Ack, error)
		End(ctx context.Context) (first, last uint64, err error)
		Tail(ctx context.Context, from bus.Position, deliver func(*bus.Message) error) error
	}
	Purge    func(below uint64) // deletes the messages below a sequence
	RollBack func(to uint64)    // takes the log back to a sequence
	Disturb  func()             // breaks what tails stand on, so that they start again
}

// patience bounds each wait.
const patience = time.Minute

// Conformance is what every log does. open makes a new one.
func Conformance(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(t *testing.T, s *suite){
		"numbers messages":              numbers,
		"stores an id once":             onceByID,
		"delivers all in order":         deliversAll,
		"goes on behind what is there":  goesOn,
		"delivers what comes live":      live,
		"survives what disturbs a tail": disturbed,
		"refuses another message there": anotherTip,
		"refuses an end behind":         endBehind,
		"refuses a hole at the start":   holeAtStart,
		"refuses a hole at its place":   holeAtPlace,
		"ends with deliver's error":     deliverFails,
		"ends with its context":         contextEnds,
		"takes many at once":            manyAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			test(t, &suite{t, ctx, open(t)})
		})
	}
}

type suite struct {
	t   *testing.T
	ctx context.Context
	Subject
}

// append appends n messages, whose data is their number.
func (s *suite) append(from, n int) {
	s.t.Helper()
	for i := from; i < from+n; i++ {
		if _, err := s.Log.Append(s.ctx, "m.learn", fmt.Sprint("id", i), fmt.Append(nil, i)); err != nil {
			s.t.Fatal(err)
		}
	}
}

var errEnough = errors.New("enough")

// read tails from a position up to a sequence.
func (s *suite) read(from bus.Position, to uint64) ([]bus.Message, error) {
	var out []bus.Message
	first := from.Check
	from.Check = func(msg *bus.Message) bool {
		if len(out) == 0 {
			return first(msg)
		}
		last := out[len(out)-1]
		return msg.Seq == last.Seq && msg.ID == last.ID && string(msg.Data) == string(last.Data)
	}
	err := s.Log.Tail(s.ctx, from, func(msg *bus.Message) error {
		copied := *msg
		copied.Data = append([]byte(nil), msg.Data...)
		out = append(out, copied)
		if msg.Seq >= to {
			return errEnough
		}
		return nil
	})
	return out, err
}

// tip is a position whose message has these data.
func tip(seq uint64, data string) bus.Position {
	return bus.Position{Applied: seq, Check: func(msg *bus.Message) bool { return string(msg.Data) == data }}
}

func numbers(t *testing.T, s *suite) {
	for want := uint64(2); want < 30; want++ {
		ack, err := s.Log.Append(s.ctx, "m.learn", fmt.Sprint(want), nil)
		if err != nil || ack.Seq != want || ack.Duplicate {
			t.Fatalf("append: %+v %v, want %d", ack, err, want)
		}
	}
	if first, last, err := s.Log.End(s.ctx); first != 1 || last != 29 || err != nil {
		t.Errorf("end: %d %d %v", first, last, err)
	}
}

func onceByID(t *testing.T, s *suite) {
	s.append(0, 3)
	ack, err := s.Log.Append(s.ctx, "m.learn", "id1", []byte("something else"))
	if err != nil || !ack.Duplicate || ack.Seq != 3 {
		t.Errorf("a repeat is acknowledged %+v %v", ack, err)
	}
	if _, last, _ := s.Log.End(s.ctx); last != 4 {
		t.Errorf("the log ends at %d", last)
	}
}

func deliversAll(t *testing.T, s *suite) {
	s.append(0, 2500)
	got, err := s.read(tip(0, ""), 2501)
	if !errors.Is(err, errEnough) || len(got) != 2501 {
		t.Fatalf("%d messages: %v", len(got), err)
	}
	for i, msg := range got {
		if msg.Seq != uint64(i+1) ||
			i > 0 && (msg.Subject != "m.learn" || msg.ID != fmt.Sprint("id", i-1) || string(msg.Data) != fmt.Sprint(i-1)) {
			t.Fatalf("message %d is %+v", i, msg)
		}
		if age := time.Since(msg.Time); age < -time.Minute || age > time.Hour {
			t.Fatalf("message %d is %s old", i, age)
		}
	}
	if got[0].Subject != "m.ctl.genesis" || got[2500].Pending != 0 {
		t.Errorf("the first is %+v, the last %+v", got[0], got[2500])
	}
}

func goesOn(t *testing.T, s *suite) {
	s.append(0, 10)
	got, err := s.read(tip(5, "3"), 11)
	if !errors.Is(err, errEnough) || len(got) != 6 || got[0].Seq != 6 {
		t.Errorf("%+v %v", got, err)
	}
}

func live(t *testing.T, s *suite) {
	caught := make(chan struct{})
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		<-caught
		s.append(0, 50)
	})
	next := uint64(1)
	err := s.Log.Tail(
		s.ctx,
		bus.Position{Check: func(msg *bus.Message) bool { return msg.Seq == next-1 }},
		func(msg *bus.Message) error {
			if msg.Seq != next {
				return fmt.Errorf("%d came, and not %d", msg.Seq, next)
			}
			if next++; msg.Seq == 1 {
				close(caught)
			}
			if msg.Seq == 51 {
				return errEnough
			}
			return nil
		},
	)
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
}

func disturbed(t *testing.T, s *suite) {
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		for i := range 5 {
			s.append(i*20, 20)
			s.Disturb()
		}
	})
	next := uint64(1)
	last := ""
	position := bus.Position{Check: func(msg *bus.Message) bool { return string(msg.Data) == last }}
	err := s.Log.Tail(s.ctx, position, func(msg *bus.Message) error {
		if msg.Seq != next {
			return fmt.Errorf("%d came, and not %d", msg.Seq, next)
		}
		next++
		if last = string(msg.Data); msg.Seq == 101 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
}

func wantRollback(t *testing.T, got []bus.Message, err error) {
	t.Helper()
	var rolled *bus.RolledBackError
	if !errors.As(err, &rolled) || len(got) > 0 {
		t.Errorf("%d messages and %v, want a RolledBackError", len(got), err)
	}
}

func anotherTip(t *testing.T, s *suite) {
	s.append(0, 10)
	got, err := s.read(tip(5, "other"), 11)
	wantRollback(t, got, err)
	s.RollBack(4)
	s.append(100, 20) // more than there was
	got, err = s.read(tip(6, "4"), 20)
	wantRollback(t, got, err)
}

func endBehind(t *testing.T, s *suite) {
	s.append(0, 10)
	s.RollBack(5)
	got, err := s.read(tip(9, "7"), 11)
	wantRollback(t, got, err)
	var rolled *bus.RolledBackError
	if errors.As(err, &rolled) && (rolled.End != 5 || rolled.Applied != 9) {
		t.Errorf("%+v, want the end at 5", rolled)
	}
}

func wantGap(t *testing.T, got []bus.Message, err error) {
	t.Helper()
	var gap *bus.GapError
	if !errors.As(err, &gap) || len(got) > 0 {
		t.Errorf("%d messages and %v, want a GapError", len(got), err)
	}
}

func holeAtStart(t *testing.T, s *suite) {
	s.append(0, 10)
	s.Purge(4)
	got, err := s.read(tip(0, ""), 11)
	wantGap(t, got, err)
}

func holeAtPlace(t *testing.T, s *suite) {
	s.append(0, 10)
	s.Purge(8)
	got, err := s.read(tip(5, "3"), 11)
	wantGap(t, got, err)
	got, err = s.read(tip(8, "6"), 11)
	if !errors.Is(err, errEnough) || len(got) != 3 {
		t.Errorf("behind the hole: %d messages, %v", len(got), err)
	}
}

func deliverFails(t *testing.T, s *suite) {
	s.append(0, 5)
	failure := errors.New("failure")
	calls := 0
	err := s.Log.Tail(s.ctx, tip(0, ""), func(*bus.Message) error { calls++; return failure })
	if err != failure || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func contextEnds(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	err := s.Log.Tail(ctx, tip(0, "genesis"), func(*bus.Message) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func manyAtOnce(t *testing.T, s *suite) {
	const writers, each = 8, 50
	var all sync.WaitGroup
	var mu sync.Mutex
	seqs := map[uint64]bool{}
	for w := range writers {
		all.Go(func() {
			for i := range each {
				ack, err := s.Log.Append(s.ctx, "m.learn", fmt.Sprint(w, ".", i), nil)
				mu.Lock()
				if seqs[ack.Seq] || err != nil {
					t.Errorf("append: %+v %v", ack, err)
				}
				seqs[ack.Seq] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	got, err := s.read(tip(0, ""), writers*each+1)
	if !errors.Is(err, errEnough) || len(got) != writers*each+1 {
		t.Errorf("%d messages, %v", len(got), err)
	}
}
