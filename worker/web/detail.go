package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"lockstep/model"
	"lockstep/worker/serve"
)

// maxInput is how many bytes of a wrong value are shown.
const maxInput = 4 << 10

// detail is one problem as FastAPI words it.
type detail struct {
	Type  string          `json:"type"`
	Loc   []any           `json:"loc"`
	Msg   string          `json:"msg"`
	Input json.RawMessage `json:"input"`
	Ctx   map[string]any  `json:"ctx,omitempty"`
}

// failure is the body of an error in FastAPI's shape: its detail is a text,
// or for a 422 a list of places.
type failure struct {
	Detail  any                 `json:"detail"`
	Error   string              `json:"error,omitempty"`   // what became of it, where the places do not say
	Results []serve.TaughtEvent `json:"results,omitempty"` // of a batch that was partly learned
}

// failed answers a request that the worker did not: with its refusal, or not
// at all where the client went away before.
func (s *Server) failed(
	served *served, w http.ResponseWriter, r *http.Request, verb string, data []byte, err error,
) int {
	var refusal *serve.Refusal
	if !errors.As(err, &refusal) {
		return http.StatusRequestTimeout
	}
	return sendValue(w, refusal.Code, worded(served.Spec(), r, verb, data, refusal))
}

// worded is a refusal as FastAPI would say it.
func worded(spec *model.Spec, r *http.Request, verb string, data []byte, refusal *serve.Refusal) failure {
	f := failure{Detail: refusal.Description, Results: refusal.Results}
	if refusal.Code != http.StatusUnprocessableEntity {
		return f
	}
	if len(refusal.Detail) == 0 {
		f.Detail = []detail{
			{Type: "value_error", Loc: []any{"body"}, Msg: refusal.Description, Input: json.RawMessage("null")},
		}
		return f
	}
	if refusal.Description != (&model.InvalidError{Problems: refusal.Detail}).Error() {
		f.Error = refusal.Description
	}
	f.Detail = details(spec, r, verb, data, refusal.Detail)
	return f
}

// details words problems as FastAPI does, in the order of its fields.
func details(spec *model.Spec, r *http.Request, verb string, data []byte, problems []model.Problem) []detail {
	root := &tree{raw: data}
	type placed struct {
		detail
		rank [2]int
	}
	all := make([]placed, 0, len(problems))
	for _, p := range problems {
		d := word(spec, r, root, p)
		all = append(all, placed{d, rank(spec, verb, p.Loc)})
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.rank[0], b.rank[0]), cmp.Compare(a.rank[1], b.rank[1]))
	})
	out := make([]detail, len(all))
	for i := range all {
		out[i] = all[i].detail
	}
	return out
}

// word is one problem as FastAPI words it.
func word(spec *model.Spec, r *http.Request, root *tree, p model.Problem) detail {
	if len(p.Loc) > 0 && p.Loc[0] == "header" {
		return detail{Type: p.Type, Loc: p.Loc, Msg: p.Msg, Input: text(r.Header.Get(fmt.Sprint(p.Loc[len(p.Loc)-1])))}
	}
	d := detail{Type: p.Type, Loc: append([]any{"body"}, p.Loc...), Msg: p.Msg, Input: root.at(p.Loc).shown()}
	switch p.Type {
	case "json_invalid":
		if len(root.raw) == 0 {
			return detail{Type: "missing", Loc: []any{"body"}, Msg: "Field required", Input: json.RawMessage("null")}
		}
		d.Msg, d.Input = "JSON decode error", json.RawMessage("{}")
		d.Ctx = map[string]any{"error": strings.TrimPrefix(p.Msg, "Invalid JSON: ")}
	case "missing":
		d.Input = root.at(p.Loc[:len(p.Loc)-1]).shown()
	case "float_type":
		var given string
		if first(d.Input) != '"' || json.Unmarshal(root.at(p.Loc).raw, &given) != nil {
			break
		}
		if v, ok := number(given); ok && (math.IsInf(v, 0) || math.IsNaN(v)) {
			d.Type, d.Msg = "finite_number", "Input should be a finite number"
		} else {
			d.Type, d.Msg = "float_parsing", "Input should be a valid number, unable to parse string as a number"
		}
	case "greater_than_equal", "less_than_equal":
		for _, f := range spec.Inputs {
			if f.Name != p.Loc[len(p.Loc)-1] {
				continue
			}
			if d.Ctx = map[string]any{"ge": f.Min}; p.Type == "less_than_equal" {
				d.Ctx = map[string]any{"le": f.Max}
			}
		}
	}
	return d
}

// rank is where FastAPI names a problem: by the event of a batch, then by the
// field.
func rank(spec *model.Spec, verb string, loc []any) (r [2]int) {
	last := len(spec.Inputs)
	if len(loc) > 0 {
		if i, ok := loc[0].(int); ok {
			r[0], loc = i, loc[1:]
		}
	}
	if verb == "teach" && len(loc) > 0 {
		switch loc[0] {
		case "attributes":
			loc = loc[1:]
		case spec.Label.Name:
			return [2]int{r[0], last + 1}
		default:
			return [2]int{r[0], last + 2}
		}
	}
	r[1] = -1 // of the whole
	if len(loc) > 0 {
		if r[1] = slices.IndexFunc(spec.Inputs, func(f model.Field) bool { return f.Name == loc[0] }); r[1] < 0 {
			r[1] = last
		}
	}
	return r
}

// tree is a JSON text that is taken apart where it is looked at.
type tree struct {
	raw     json.RawMessage
	members map[string]*tree
	items   []*tree
}

// at is the value at a place, nil if there is none.
func (t *tree) at(loc []any) *tree {
	for _, part := range loc {
		if t == nil {
			return nil
		}
		t = t.child(part)
	}
	return t
}

func (t *tree) child(part any) *tree {
	switch part := part.(type) {
	case string:
		if t.members == nil {
			var raw map[string]json.RawMessage
			if json.Unmarshal(t.raw, &raw) != nil {
				return nil
			}
			t.members = make(map[string]*tree, len(raw))
			for key, value := range raw {
				t.members[key] = &tree{raw: value}
			}
		}
		return t.members[part]
	case int:
		if t.items == nil {
			var raw []json.RawMessage
			if json.Unmarshal(t.raw, &raw) != nil {
				return nil
			}
			for _, value := range raw {
				t.items = append(t.items, &tree{raw: value})
			}
		}
		if part < 0 || part >= len(t.items) {
			return nil
		}
		return t.items[part]
	}
	return nil
}

// shown is a value as an error shows it: a long one as its beginning.
func (t *tree) shown() json.RawMessage {
	switch {
	case t == nil || !json.Valid(t.raw):
		return json.RawMessage("null")
	case len(t.raw) > maxInput:
		return text(strings.ToValidUTF8(string(bytes.TrimSpace(t.raw)[:maxInput/4]), "") + "…")
	}
	return bytes.TrimSpace(t.raw)
}

func text(s string) json.RawMessage {
	data, _ := json.Marshal(s) // texts always marshal
	return data
}
