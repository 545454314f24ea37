package web

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"slices"
	"strings"

	"lockstep/model"
	"lockstep/worker/replica"
)

//go:embed docs.html
var docsHTML string

var docsPage = template.Must(template.New("docs").Parse(docsHTML))

// docs is the OpenAPI document for people, with an event of the log as the
// example.
func (s *Server) docs(w http.ResponseWriter, r *http.Request) {
	served := s.worker.Load()
	if served == nil {
		refuse(w, http.StatusServiceUnavailable, notAttached)
		return
	}
	spec, view := served.Spec(), served.View()
	e := newestExample(r.Context(), served, &view)
	if e == nil {
		e = madeExample(spec, &view)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	_ = docsPage.Execute(w, map[string]any{
		"Spec": spec, "URL": s.URL(), "MaxBatch": model.MaxBatch, "Fields": docFields(spec, &view, e),
		"Learned": len(view.Labels) > 0, "Example": shellQuoted(e.attributes(spec)), "Learn": shellQuoted(e.event(spec)),
	})
}

// docField is a line of the table of attributes.
type docField struct {
	Name, Type, Null, Bounds, Seen string
}

// maxSeen is how many values of a category the table shows.
const maxSeen = 3

func docFields(spec *model.Spec, view *replica.View, e *example) []docField {
	var out []docField
	for i := range spec.Inputs {
		f := &spec.Inputs[i]
		d := docField{Name: f.Name, Type: f.Type.String(), Null: "no", Seen: string(e.values[i])}
		if f.Nullable {
			d.Null = "yes"
		}
		switch f.Type {
		case model.Number:
			d.Bounds = numberBounds(f.Min, f.Max)
		case model.Text:
			d.Bounds = fmt.Sprintf("at most %d bytes", f.MaxBytes)
		case model.Timestamp:
			d.Bounds = "RFC 3339, or seconds since 1970"
		case model.Category:
			d.Type = "text"
			d.Bounds = fmt.Sprintf("at most %d bytes; %d different ones are learned", f.MaxBytes, f.MaxValues)
			d.Seen = strings.Join(view.Values[i][:min(len(view.Values[i]), maxSeen)], ", ")
		}
		out = append(out, d)
	}
	return out
}

func numberBounds(low, high float64) string {
	switch hasLow, hasHigh := !math.IsInf(low, -1), !math.IsInf(high, 1); {
	case hasLow && hasHigh:
		return fmt.Sprintf("%v to %v", low, high)
	case hasLow:
		return fmt.Sprintf("%v or more", low)
	case hasHigh:
		return fmt.Sprintf("%v or less", high)
	}
	return "any"
}

// example is an event, as JSON values: one for each input, and the label.
type example struct {
	values []json.RawMessage
	label  json.RawMessage
}

// newestExample is the event of the log that was learned last; nil if that is
// not known, or cannot be read.
func newestExample(ctx context.Context, served *served, view *replica.View) *example {
	for _, s := range slices.Backward(view.Tail) {
		if s.Verdict != model.Learned {
			continue
		}
		attributes, label, err := served.Row(ctx, s.Seq, s.Index)
		var given map[string]json.RawMessage
		if err != nil || json.Unmarshal(attributes, &given) != nil || label == nil {
			return nil
		}
		e := &example{label: label}
		for _, f := range served.Spec().Inputs {
			e.values = append(e.values, given[f.Name])
		}
		return e
	}
	return nil
}

// madeExample is made of values that were seen; where there are none, a name
// in angle brackets says that a value is to be put there.
func madeExample(spec *model.Spec, view *replica.View) *example {
	text := func(name string, seen []string) json.RawMessage {
		if len(seen) > 0 {
			return jsonText(seen[0])
		}
		return jsonText("<" + name + ">")
	}
	made := func(f *model.Field, seen []string) json.RawMessage {
		switch f.Type {
		case model.Number:
			return fmt.Append(nil, min(max(1, f.Min), f.Max))
		case model.Boolean:
			return json.RawMessage("true")
		case model.Timestamp:
			return jsonText("2026-01-31T08:30:00Z")
		default:
			return text(f.Name, append(seen, f.Values...))
		}
	}
	e := &example{label: made(&spec.Label, view.Labels)}
	for i := range spec.Inputs {
		e.values = append(e.values, made(&spec.Inputs[i], view.Values[i]))
	}
	return e
}

func (e *example) attributes(spec *model.Spec) string {
	var b bytes.Buffer
	for i, value := range e.values {
		if value == nil { // only of an input that the event did not have
			value = json.RawMessage("null")
		}
		fmt.Fprintf(&b, "%c%s:%s", "{,"[min(i, 1)], jsonText(spec.Inputs[i].Name), value)
	}
	b.WriteByte('}')
	return b.String()
}

func (e *example) event(spec *model.Spec) string {
	return fmt.Sprintf(`{"attributes":%s,%s:%s}`, e.attributes(spec), jsonText(spec.Label.Name), e.label)
}

// jsonText is a text in JSON, readable: html/template escapes it for HTML.
func jsonText(text string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a text always marshals
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// shellQuoted is a text for between the quotes ' of a shell.
func shellQuoted(text string) string { return strings.ReplaceAll(text, `'`, `'\''`) }
