package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"lockstep/model"
	"lockstep/worker/serve"
)

// FuzzBody: whatever a body is, making numbers of its texts keeps it JSON and
// breaks nothing that was good, and its problems have a place and a value.
func FuzzBody(f *testing.F) {
	spec := model.DefaultSpec()
	for _, seed := range []string{
		row(), row("body_mass_g", `" 1_0 "`), event(row("sex", "1"), `"x"`), "[" + event(row("bill_length_mm", "true"), "null") + ",{}]", `{"body_mass_g":"nan","body_mass_g":"1"}`,
		`{"a":[{"body_mass_g":"1"}],"body_mass_g" : "2"}`, `{"attributes":{"attributes":{"body_mass_g":"1"},"bill_depth_mm":"2"}}`, `[[{"attributes":{"body_mass_g":"1"}}]]`, `{"body_mass_g":"\ud800"}`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &http.Request{Header: http.Header{}}
		for _, verb := range []string{"predict", "teach"} {
			before := problemsOf(spec, verb, data)
			out, changed := lax(spec, verb, data)
			if !changed && string(out) != string(data) {
				t.Fatalf("%q became %q and is called unchanged", data, out)
			}
			if json.Valid(data) && !json.Valid(out) {
				t.Fatalf("%q became %q", data, out)
			}
			after := problemsOf(spec, verb, out)
			if len(before) == 0 && (changed || len(after) > 0) {
				t.Fatalf("good %q became %q: %v", data, out, after)
			}
			if len(after) == 0 {
				continue
			}
			text, err := json.Marshal(worded(spec, r, verb, data, &serve.Refusal{Code: 422, Detail: after}))
			var said struct {
				Detail []struct {
					Type, Msg string
					Loc       []any
					Input     *json.RawMessage
				}
			}
			if err != nil || json.Unmarshal(text, &said) != nil || len(said.Detail) != len(after) {
				t.Fatalf("%q: %v %s", data, err, text)
			}
			for _, d := range said.Detail {
				if d.Type == "" || d.Msg == "" || len(d.Loc) == 0 {
					t.Fatalf("%q: %s", data, text)
				}
			}
		}
	})
}

// problemsOf is all that the model finds wrong with a body.
func problemsOf(spec *model.Spec, verb string, data []byte) (all []model.Problem) {
	d := model.NewDecoder(spec)
	var err error
	if verb == "predict" {
		_, err = d.Attributes(data)
	} else {
		var events []model.Event
		events, _, err = d.Learn(data)
		for _, e := range events {
			all = append(all, e.Problems...)
		}
	}
	var bad *model.InvalidError
	if errors.As(err, &bad) {
		return bad.Problems
	}
	return all
}
