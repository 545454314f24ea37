package model

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func parsed(t testing.TB, text string) *Spec {
	t.Helper()
	s, err := ParseSpec([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const namedSpec = `
name: named
input:
  %s: {type: number, min: 0, max: 1}
label: {name: %s, type: category}
pipeline: [GaussianNB]
`

// TestNamesOfOursAreRefused: neither an input nor the label has the name of a
// key of the replies, and they have two names; all of it is said at once, and
// a log that was made with such a spec is folded all the same.
func TestNamesOfOursAreRefused(t *testing.T) {
	for _, key := range ReplyKeys() {
		for _, names := range [][]any{{key, "y"}, {"x", key}} {
			s := parsed(t, fmt.Sprintf(namedSpec, names...))
			if _, err := New(s); err == nil || !strings.Contains(err.Error(), key+": the name is a key of the replies") {
				t.Errorf("input %s and label %s: got %v, want it refused", names[0], names[1], err)
			}
			g, err := ParseGenesis(NewGenesis(s, "i"))
			if err != nil {
				t.Fatal(err)
			}
			logged, err := g.ParseSpec()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := New(logged); err != nil {
				t.Errorf("input %s and label %s: got %v, want it folded from its log", names[0], names[1], err)
			}
			if logged.Contract() != s.Contract() {
				t.Errorf("input %s and label %s: its log gives another contract", names[0], names[1])
			}
		}
	}
	_, err := New(parsed(t, fmt.Sprintf(namedSpec, "same", "same")))
	if err == nil || !strings.Contains(err.Error(), "label same: an input has the same name") {
		t.Errorf("label and input of one name: got %v, want it refused", err)
	}
	_, err = New(parsed(t, fmt.Sprintf(namedSpec, "seq", "seq")))
	if n := strings.Count(fmt.Sprint(err), "\n"); n != 3 {
		t.Errorf("got %d problems, want 3: %v", n, err)
	}
	if _, err := New(parsed(t, fmt.Sprintf(namedSpec, "Status", "Predicted"))); err != nil {
		t.Errorf("names in another case: got %v, want them taken", err)
	}
}

const prefixSpec = `
name: prefix
input:
  %[1]s: {type: category, nullable: true}
  %[2]s: {type: category, nullable: true}
  n: {type: number, min: 0, max: 10}
label: {name: y, type: category}
pipeline:
  - union:
      - [{Select: [%[1]s, %[2]s]}, {OneHotEncoder: {drop_first: %[3]t}}]
      - [{Select: [n]}]
  - MultinomialNB
`

// TestFeaturesAreToldApartByColumnAndValue: with the columns job and
// job_partner, the value partner_x of the one and x of the other have one text
// when joined. The model is the same as with other names.
func TestFeaturesAreToldApartByColumnAndValue(t *testing.T) {
	for _, dropFirst := range []bool{false, true} {
		apart := newModel(t, parsed(t, fmt.Sprintf(prefixSpec, "ja", "jb", dropFirst)))
		m := newModel(t, parsed(t, fmt.Sprintf(prefixSpec, "job", "job_partner", dropFirst)))
		values := []string{
			`"partner_x"`, `"x"`, `"partner_partner_x"`, `"None"`, `null`, `"partner_None"`, `"partner_"`, `""`,
		}
		var s sequence
		for seq := uint64(1); seq < 300; seq++ {
			a, b := values[s.next()%8], values[s.next()%8]
			if seq == 1 {
				a, b = `"!"`, `"x"` // the smallest of both models: it is the one that is dropped
			}
			if seq%4 == 0 {
				a = fmt.Sprintf(`"partner_%d"`, s.next()%50) // for a fresh one of the same text as another's
				b = fmt.Sprintf(`"%d"`, s.next()%50)
			}
			row := func(first, second string) string {
				return fmt.Sprintf(`{"%s":%s,"%s":%s,"n":%d}`, first, a, second, b, seq%7)
			}
			compareNamed(t, m, apart, row("job", "job_partner"), row("ja", "jb"))
			event := `{"attributes":%s,"y":"%d"}`
			class := s.next() % 3
			m.Apply(Message{Seq: seq, Subject: SubjectLearn, Data: fmt.Appendf(nil, event, row("job", "job_partner"), class)})
			apart.Apply(Message{Seq: seq, Subject: SubjectLearn, Data: fmt.Appendf(nil, event, row("ja", "jb"), class)})
			restored, err := Restore(m.Spec(), m.AppendState(nil))
			if err != nil {
				t.Fatalf("%d: the state is not read back: %v", seq, err)
			}
			m = restored
		}
		if m.Learned() != apart.Learned() || m.Learned() == 0 {
			t.Fatalf("learned %d and %d", m.Learned(), apart.Learned())
		}
	}
}

// compareNamed compares what two models say of a row, which they call by
// other names.
func compareNamed(t *testing.T, m, apart *Model, row, other string) {
	t.Helper()
	var said []Explanation
	for i, c := range []*Model{m, apart} {
		r, err := NewDecoder(c.Spec()).Attributes([]byte([]string{row, other}[i]))
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, c.Explain(r))
	}
	got, want := said[0], said[1]
	if !slices.Equal(got.Proba, want.Proba) {
		t.Fatalf("%s: got %v, want %v", row, got.Proba, want.Proba)
	}
	seen := map[string]bool{}
	for _, f := range got.Features {
		if seen[f.Feature] {
			t.Fatalf("%s: two features are called %s", row, f.Feature)
		}
		seen[f.Feature] = true
	}
	if len(got.Features) != len(want.Features) {
		t.Fatalf("%s: got %d features, want %d", row, len(got.Features), len(want.Features))
	}
}

// TestFeaturesHaveRiversNames but where two of them could have the same.
func TestFeaturesHaveRiversNames(t *testing.T) {
	for _, c := range []struct{ first, second, number, want string }{
		{"job", "partner", "n", "n job_a partner_b"},
		{"job", "jobpartner", "n", "n job_a jobpartner_b"},
		{"job", "job_partner", "n", `n job="a" job_partner="b"`},
		{"job_partner", "job", "n", `n job_partner="a" job="b"`},
		{"job", "age", "job_n", `job_n job="a" age_b`},
		{"job(1)=", "job(1)=_", "n", `n "job(1)="="a" "job(1)=_"="b"`},
	} {
		text := strings.ReplaceAll(
			fmt.Sprintf(strings.ReplaceAll(prefixSpec, "[n]", "['%[4]s']"), c.first, c.second, false, c.number),
			"\n  n:", "\n  '"+c.number+"':",
		)
		m := newModel(t, parsed(t, text))
		row := fmt.Sprintf(`{%q:"a",%q:"b",%q:1}`, c.first, c.second, c.number)
		m.Apply(Message{Seq: 1, Subject: SubjectLearn, Data: []byte(`{"attributes":` + row + `,"y":"z"}`)})
		r, err := NewDecoder(m.Spec()).Attributes([]byte(row))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range m.Explain(r).Features {
			got = append(got, f.Feature)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("got %s, want %s", strings.Join(got, " "), c.want)
		}
	}
}

// TestNoControlCharacterLeaves: what a stranger wrote into a spec, a state or a
// genesis does not reach a terminal raw through an error.
func TestNoControlCharacterLeaves(t *testing.T) {
	const nasty = "a\x1b[2J\u009b\u202e\r\x00b\xff"
	nastyYAML := `"a\e[2J\x9b\u202e\rb"`
	state := newModel(t, DefaultSpec()).AppendState(nil)
	texts := map[string]error{}
	add := func(name string, err error) { texts[name] = err }
	parse := func(text string) error {
		s, err := ParseSpec([]byte(text))
		if err == nil {
			_, err = New(s)
		}
		return err
	}
	add("raw", parse("name: "+nasty))
	add("name", parse("name: "+nastyYAML))
	add("key", parse(nastyYAML+": 1"))
	add(
		"input",
		parse(
			"name: a\ninput: {"+nastyYAML+": {type: number, min: x, "+nastyYAML+": 1}}\nlabel: {name: l, type: "+
				"category}\npipeline: [GaussianNB]",
		),
	)
	add(
		"direction",
		parse("name: a\ninput: {\"a\\u202e\": {type: number}}\nlabel: {name: l, type: category}\npipeline: [GaussianNB]"),
	)
	add("statistic", parse("name: a\npipeline: [{StatImputer: {"+nastyYAML+": "+nastyYAML+"}}]"))
	add("class", parse("name: a\npipeline: ["+nastyYAML+"]"))
	add("tag", parse("name: !a%1b%9b x"))
	add("alias", parse("name: *a\u202e"))
	add(
		"column",
		parse(
			"name: a\ninput: {x: {type: number}}\nlabel: {name: l, type: category}\npipeline: [{Select: ["+nastyYAML+"]}, GaussianNB]",
		),
	)
	_, err := Restore(
		DefaultSpec(),
		append([]byte("\x16\x00\x00\x00\x00\x00\x00\x00lockstep-state-"+"\x1b[2J\x1b["), state[24:]...),
	)
	add("encoding", err)
	_, err = ParseReceipt(nasty)
	add("receipt", err)
	_, err = ParseGenesis([]byte("{\"incarnation\":\"\x1b\"}"))
	add("genesis", err)
	_, err = ParseGenesis([]byte(`{"incarnation":"\u001b[2J","contract":"` + strings.Repeat("0", 64) + `","spec":""}`))
	add("incarnation", err)
	_, err = ParseGenesis([]byte(`{"incarnation":"i","contract":"\u001b[2J` + strings.Repeat("0", 60) + `","spec":""}`))
	add("contract", err)
	_, _, err = NewDecoder(
		DefaultSpec(),
	).Learn([]byte(`{"attributes":{"island":"a","\u001b\u009b\u202e":1,"\u001b\u009b\u202e":1},"species":"a"}`))
	add("key of an event", err)
	m := newModel(t, DefaultSpec())
	o := m.Apply(Message{Seq: 1, Subject: "ctl." + nasty}).Outcomes[0]
	add("control event", &InvalidError{o.Problems})
	o = m.Apply(Message{Seq: 2, Subject: SubjectLearn, Data: []byte(`{"attributes":{"\u001b\u009b\u202e":1,"\u001b\u009b\u202e":1},"species":"a"}`)}).Outcomes[0]
	add("bad event", &InvalidError{o.Problems})
	for name, err := range texts {
		if err == nil {
			if name != "direction" && name != "key of an event" {
				t.Errorf("%s: no error", name)
			}
			continue
		}
		if text := strings.ReplaceAll(err.Error(), "\n", " "); printable(text) != text {
			t.Errorf("%s: got %q, want it escaped", name, text)
		}
	}
}

// TestOutcomesKeepTheirProbabilities: each event of a batch has what was
// predicted of it, also of a batch that is larger than all before it, and none
// can change another's.
func TestOutcomesKeepTheirProbabilities(t *testing.T) {
	m, alone := newModel(t, DefaultSpec()), newModel(t, DefaultSpec())
	var events [][]byte
	for _, l := range readTrace(t, "penguins-shuffled.jsonl") {
		if !l.Final {
			events = append(events, l.learnEvent())
		}
	}
	seq := uint64(0)
	for from, size := 0, 1; from < len(events); from, size = from+size, 2*size {
		batch := events[from:min(from+size, len(events))]
		seq++
		outcomes := m.Apply(
			Message{
				Seq: seq, Subject: SubjectLearn,
				Data: slices.Concat([]byte("["), bytes.Join(batch, []byte(",")), []byte("]")),
			},
		).Outcomes
		for i, event := range batch {
			want := alone.Apply(Message{Seq: alone.Seq() + 1, Subject: SubjectLearn, Data: event}).Outcomes[0].Proba
			if !slices.Equal(outcomes[i].Proba, want) {
				t.Errorf("event %d of the message %d: got %v, want %v", i, seq, outcomes[i].Proba, want)
			}
			_ = append(outcomes[i].Proba, 7) // must not reach the next one's
		}
	}
}
