package replica

import (
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// TestWhereAFoldGoesAnotherWay: replayed from the start, a replica knows the first
// sequence at which the log is another, or what it made of the same log.
func TestWhereAFoldGoesAnotherWay(t *testing.T) {
	l := alone(t)
	again := func() {
		t.Helper()
		if err := l.forget(); err != nil {
			t.Fatal(err)
		}
	}
	want := func(log, state uint64) {
		t.Helper()
		if gotLog, gotState := l.core.differed(); gotLog != log || gotState != state {
			t.Errorf(
				"it differs from %d on in the log and from %d on in the state, want %d and %d", gotLog, gotState,
				log, state,
			)
		}
	}
	l.fold(t, 7)
	again()
	l.fold(t, 7)
	want(0, 0)

	again()
	l.core.tamper = func(m *model.Model) *model.Model {
		for bit := 0; m.Seq() == 4; bit++ {
			if wrong, ok := m.Flipped(bit); ok && wrong.Seq() == 4 && wrong.LogChain() == m.LogChain() &&
				wrong.StateChain() != m.StateChain() {
				return wrong
			}
		}
		return m
	}
	l.fold(t, 7)
	want(0, 4)
	l.core.tamper = nil
	again()
	l.fold(t, 7)
	want(0, 4) // now it is right, and was not

	again()
	l.fold(t, 2)
	for seq := uint64(3); seq <= 7; seq++ {
		msg := bus.Message{Seq: seq, Subject: "penguins.learn", Data: []byte(adelie), Time: time.Unix(int64(seq), 0)}
		if err := l.current.deliver(read(l.cfg.Spec, &msg)); err != nil {
			t.Fatal(err)
		}
	}
	want(3, 0)
}
