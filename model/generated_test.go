package model

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"
)

// generate makes the next message of a fixed pseudo-random log: good and bad
// events, alone and in batches, with ids of which some repeat.
func (s *sequence) generate(seq uint64) Message {
	msg := Message{Seq: seq, Subject: SubjectLearn}
	if s.next()%3 == 0 {
		msg.ID = fmt.Sprint(s.next() % 50_000)
	}
	if s.next()%16 > 0 {
		msg.Data = []byte(s.event())
		return msg
	}
	events := make([]string, 1+s.next()%4)
	for i := range events {
		events[i] = s.event()
	}
	msg.Data = []byte("[" + strings.Join(events, ",") + "]")
	return msg
}

// event is good but for one in about five.
func (s *sequence) event() string {
	number := func(most float64) string {
		switch s.next() % 32 {
		case 0, 1:
			return "null"
		case 2:
			return fmt.Sprint(most * 1.01)
		}
		return fmt.Sprint(math.Floor(s.unit()*most*10) / 10)
	}
	text := func(values ...string) string { return values[s.next()%uint64(len(values))] }
	return fmt.Sprintf(`{"attributes":{"island":"%s","bill_length_mm":%s,"bill_depth_mm":%s,"flipper_length_mm":%s,"body_mass_g":%s,"sex":%s},"species":"%s"}`,
		fmt.Sprint("island", s.next()%70), number(1000), number(1000), number(10000), number(100000),
		text(`"male"`, `"female"`, `null`, `"None"`, `"other"`), text("Adelie", "Gentoo", "Chinstrap", "Emperor", "King"))
}

// TestGeneratedDigestsAreTheSameEverywhere folds 100,000 messages with each
// shipped spec.
func TestGeneratedDigestsAreTheSameEverywhere(t *testing.T) {
	for name, want := range map[string]string{"penguins": "24970af240fff807 dd9f03935430d020", "penguins-gaussian": "a65911371547f29b 436607066ad6d29d"} {
		spec, _ := ShippedSpec(name)
		m := newModel(t, spec)
		var s sequence
		for seq := range uint64(100_000) {
			m.Apply(s.generate(seq + 1))
		}
		digest, state := m.Digest(), m.StateChain()
		got := hex.EncodeToString(digest[:8]) + " " + hex.EncodeToString(state[:8])
		t.Logf("%s: digest and state chain %s; learned %d, rejected %d, repeated %d", name, got, m.Learned(), m.Rejected(), m.Duplicates())
		if got != want {
			t.Errorf("%s: digest and state chain are %s, and should be %s everywhere", name, got, want)
		}
		if m.Rejected() == 0 || m.Duplicates() == 0 {
			t.Errorf("%s: nothing was rejected or repeated", name)
		}
	}
}
