package web

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"

	"lockstep/model"
)

// object is a JSON object; encoding/json sorts its keys, so the document is
// the same at every start.
type object = map[string]any

// openapi describes the door of a model, by its spec.
func openapi(spec *model.Spec, version string) []byte {
	attributes, required := object{}, []string{}
	for i := range spec.Inputs {
		attributes[spec.Inputs[i].Name] = schema(&spec.Inputs[i])
		if !spec.Inputs[i].Optional {
			required = append(required, spec.Inputs[i].Name)
		}
	}
	label := schema(&spec.Label)
	ref := func(name string) object { return object{"$ref": "#/components/schemas/" + name} }
	content := func(schema object, more ...string) object {
		out := object{"application/json": object{"schema": schema}}
		for _, kind := range more {
			out[kind] = object{"schema": schema}
		}
		return object{"content": out}
	}
	many := func(name string) object {
		return object{
			"oneOf": []object{ref(name), {"type": "array", "items": ref(name), "minItems": 1, "maxItems": model.MaxBatch}},
		}
	}
	header := func(name, kind, description string) object {
		return object{
			"name": name, "in": "header", "required": false,
			"schema": object{"type": kind}, "description": description,
		}
	}
	minSeq := header(
		"Lockstep-Min-Seq", "integer", "Answer from this sequence of the log or later: read your own writes.",
	)
	timeout := header("Lockstep-Timeout", "string", "How long that may take, as in 500ms or 10s; 2 s if not given.")
	include := object{"name": "include", "in": "query", "required": false, "schema": object{"enum": []string{"proba"}},
		"description": "Have the probabilities of all classes, too."}
	id := header(headerID, "string", "Names the event: a repeat learns nothing twice and gets the first answer.")
	answer := func(description string, schema object) object {
		out := content(schema)
		out["description"] = description
		return out
	}
	answers := func(ok object) object {
		seq := object{"description": "the sequence of the log that the answer is of", "schema": object{"type": "integer"}}
		receipt := object{
			"description": "names the state that answered; lockstep verify reproduces it",
			"schema":      object{"type": "string"},
		}
		good := answer("Successful Response", ok)
		good["headers"] = object{headerSeq: seq, headerReceipt: receipt}
		return object{
			"200": good,
			"422": answer("Validation Error", ref("HTTPValidationError")),
			"default": answer(
				"Any other error, with its reason: 409 the id belongs to another event, 413 too large, 415 not JSON, "+
					"503 try again, 504 it took too long",
				ref("Error"),
			),
		}
	}
	operation := func(summary, description string, in object, ok object, parameters ...object) object {
		in["required"] = true
		return object{
			"post": object{
				"summary": summary, "description": description, "requestBody": in, "responses": answers(ok),
				"parameters": parameters,
			},
		}
	}
	get := func(summary string, schema object) object {
		return object{"get": object{"summary": summary, "responses": object{"200": answer("Successful Response", schema)}}}
	}
	lines := "application/x-ndjson"
	text, number := object{"type": "string"}, object{"type": "integer"}
	label200 := schema(&spec.Label)
	if !spec.Label.Nullable {
		label200 = nullable(label200)
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{"title": spec.Name, "version": version,
			"description": "One replica of a model that learns while it serves. Every replica answers the same at the same " +
				"sequence of the log."},
		"paths": object{
			"/predict": operation(
				"Predict",
				"The label of a row; an array of rows gets an array, JSON lines get lines, as they come.",
				content(
					many("Attributes"), lines,
				),
				object{"oneOf": []object{ref("Prediction"), {"type": "array", "items": ref("Prediction")}}},
				include, minSeq, timeout,
			),
			"/learn": operation(
				"Learn",
				"Checks one event, or an array that is learned in order, stores it, and answers once it is learned.",
				content(many("LearnRequest"), lines), ref("Learned"), id, minSeq, timeout,
			),
			"/explain": operation(
				"Explain",
				"A prediction, its probabilities, and what each feature added to each class's log-likelihood.",
				content(ref("Attributes")), object{"type": "object"}, minSeq, timeout,
			),
			"/status":  get("What this replica says of itself and of its fleet", object{"type": "object"}),
			"/healthz": get("The process runs", object{"type": "object"}),
			"/readyz":  get("The replica has caught up and answers; else 503 and why", object{"type": "object"}),
		},
		"components": object{"schemas": object{
			"Attributes": object{"type": "object", "properties": attributes, "required": required},
			"LearnRequest": object{
				"type":       "object",
				"properties": object{"attributes": ref("Attributes"), spec.Label.Name: label},
				"required":   []string{"attributes", spec.Label.Name},
			},
			"Prediction": object{
				"type":       "object",
				"properties": object{spec.Label.Name: label200, "predicted": number, "learned": number},
				"required":   []string{spec.Label.Name, "predicted", "learned"},
			},
			"Learned": object{"type": "object", "properties": object{"status": text, "predicted": number, "learned": number,
				"results": object{
					"type": "array", "description": "of an array, in order", "items": object{"type": "object"},
				}}, "required": []string{"status", "predicted", "learned"}},
			"HTTPValidationError": object{
				"type":       "object",
				"properties": object{"detail": object{"type": "array", "items": ref("ValidationError")}},
			},
			"ValidationError": object{"type": "object", "properties": object{
				"type": text, "msg": text, "input": object{}, "ctx": object{"type": "object"},
				"loc": object{
					"type": "array", "items": object{"anyOf": []object{text, number}},
				}}, "required": []string{"loc", "msg", "type"}},
			"Error": object{"type": "object", "properties": object{"detail": text}, "required": []string{"detail"}},
		}},
	}
	out, err := json.Marshal(doc)
	if err != nil {
		panic(err) // texts and finite numbers always marshal
	}
	return out
}

// schema is a field as JSON Schema.
func schema(f *model.Field) object {
	s := object{"type": "string", "maxLength": f.MaxBytes}
	switch f.Type {
	case model.Category:
		s["description"] = fmt.Sprintf("at most %d different ones are learned", f.MaxValues)
		if f.Overflow {
			s["description"] = fmt.Sprintf(
				"%d different ones are learned; the rest count as %q", f.MaxValues, model.OverflowValue,
			)
		}
		if f.Integers {
			s["type"] = []string{"string", "integer"}
		}
		if f.Values != nil {
			s["enum"] = f.Values
		}
	case model.Number:
		s = object{"type": "number"}
		if !math.IsInf(f.Min, -1) {
			s["minimum"] = f.Min
		}
		if !math.IsInf(f.Max, 1) {
			s["maximum"] = f.Max
		}
	case model.Boolean:
		s = object{"type": "boolean"}
	case model.Timestamp:
		s = object{
			"anyOf":       []object{{"type": "string", "format": "date-time"}, {"type": "number"}},
			"description": "RFC 3339, or seconds since 1970",
		}
	}
	if f.Nullable {
		return nullable(s)
	}
	return s
}

func nullable(s object) object { return object{"anyOf": []object{s, {"type": "null"}}} }

// spec is the OpenAPI document.
func (s *Server) spec(w http.ResponseWriter, _ *http.Request) {
	served := s.worker.Load()
	if served == nil {
		refuse(w, http.StatusServiceUnavailable, notAttached)
		return
	}
	send(w, http.StatusOK, served.openapi)
}
