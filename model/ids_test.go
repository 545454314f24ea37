package model

import (
	"fmt"
	"testing"
)

// penguin is a learn event.
func penguin(species string) string {
	return `{"attributes":{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"},"species":"` + species + `"}`
}

// TestTheRingOfIDs: the window's last ids are known, the one before them is
// not; also of a state that was restored, with the ring not yet full, full,
// and gone round.
func TestTheRingOfIDs(t *testing.T) {
	const window = 3
	s := DefaultSpec()
	s.DedupWindow = window
	m := newModel(t, s)
	event := penguin("Adelie")
	events, _, err := NewDecoder(s).Learn([]byte(event))
	if err != nil {
		t.Fatal(err)
	}
	apply := func(m *Model, id, data string) *Result {
		return m.Apply(Message{Seq: m.Seq() + 1, Subject: SubjectLearn, ID: id, Data: []byte(data)})
	}
	apply(m, "", event)
	for i := range 3 * window {
		if o := apply(m, fmt.Sprint(i), event).Outcomes[0]; o.Verdict != Learned {
			t.Fatalf("%d: %+v", i, o)
		}
		for j := range i + 1 {
			answer, _, found := m.Repeat(fmt.Sprint(j), 0, &events[0])
			if found != (i-j < window) || found && answer.Seq != uint64(j+2) {
				t.Errorf("after %d, %d is found %t, of %d", i, j, found, answer.Seq)
			}
			m, err := Restore(s, m.AppendState(nil))
			if err != nil {
				t.Fatal(err)
			}
			want := Learned
			if i-j < window {
				want = Duplicate
			}
			if o := apply(m, fmt.Sprint(j), event).Outcomes[0]; o.Verdict != want ||
				o.Verdict == Duplicate && o.Answer.Seq != uint64(j+2) {
				t.Errorf("after %d, %d is %s of %d, want %s", i, j, o.Verdict, o.Answer.Seq, want)
			}
		}
	}
}

// TestOnlyLearnedEventsUseUpAnID: neither what is bad nor what there is no room
// for; and the events of a batch have an id each.
func TestOnlyLearnedEventsUseUpAnID(t *testing.T) {
	s := DefaultSpec()
	s.Label.MaxValues = 1
	m := newModel(t, s)
	for i, c := range []struct {
		id, data string
		want     []Verdict
	}{
		{"", penguin("p"), []Verdict{Learned}},
		{"one", penguin("q"), []Verdict{Rejected}},
		{"one", `{}`, []Verdict{Rejected}},
		{"one", penguin("p"), []Verdict{Learned}},
		{"one", penguin("p"), []Verdict{Duplicate}},
		{"two", "[" + penguin("p") + "," + penguin("q") + "," + penguin("p") + "]", []Verdict{Learned, Rejected, Learned}},
		{"two", "[" + penguin("p") + "," + penguin("p") + "," + penguin("p") + "]", []Verdict{Duplicate, Learned, Duplicate}},
	} {
		r := m.Apply(Message{Seq: uint64(i + 1), Subject: SubjectLearn, ID: c.id, Data: []byte(c.data)})
		var got []Verdict
		for _, o := range r.Outcomes {
			got = append(got, o.Verdict)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%d: %v, want %v", i+1, got, c.want)
		}
	}
}
