package main

import (
	"bytes"
	"testing"
	"time"

	"lockstep/model"
)

// TestTailWords: what each verdict looks like.
func TestTailWords(t *testing.T) {
	const good = `{"attributes":{"island":"Dream","bill_length_mm":1,"bill_depth_mm":1,"flipper_length_mm":1,"body_mass_g":1,"sex":null},"species":`
	m, err := model.New(model.DefaultSpec())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	for i, message := range []model.Message{
		{ID: "a", Data: []byte(good + `"Adelie"}`)},
		{Data: []byte(good + `"Gentoo"}`)},
		{ID: "a", Data: []byte(good + `"Adelie"}`)},
		{Data: []byte(`[` + good + `"Adelie"},{"species":"Adelie"}]`)},
	} {
		message.Seq, message.Subject = uint64(i+1), model.SubjectLearn
		if err := new(tailOptions).print(&out, at, m.Apply(message)); err != nil {
			t.Fatal(err)
		}
	}
	if err := (&tailOptions{rejected: true, json: true}).print(&out, at, m.Apply(model.Message{Seq: 5, Subject: model.SubjectLearn, Data: []byte(`[` + good + `"Adelie"},7]`)})); err != nil {
		t.Fatal(err)
	}
	want := `2026-01-02 03:04:05  1          learned   Adelie, nothing was known before
2026-01-02 03:04:05  2          learned   Gentoo, predicted Adelie
2026-01-02 03:04:05  3          duplicate Adelie, learned at 1 already
2026-01-02 03:04:05  4.0        learned   Adelie, as predicted
2026-01-02 03:04:05  4.1        rejected  1.attributes: Field required
{"seq":5,"index":1,"time":"` + at.UTC().Format(time.RFC3339) + `","verdict":"rejected","detail":[{"loc":[1],"msg":"Input should be a valid dictionary or object to extract fields from","type":"model_attributes_type"}]}
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}
