package model

import (
	"lockstep/model/river"
)

// Target is a label: what an event has, or what a prediction says of one.
type Target struct {
	Type FieldType
	Text string  // of a category, and of a boolean: "true" or "false"
	Num  float64 // of a number
}

// The labels of a spec whose label is a boolean, as texts.
const (
	falseText = "false"
	trueText  = "true"
)

// String is the label as a reader sees it.
func (t Target) String() string {
	if t.Type == Number {
		return river.Shortest(t.Num)
	}
	return t.Text
}

// AppendJSON appends the label as JSON: a text, true or false, or a number.
func (t Target) AppendJSON(dst []byte) []byte {
	switch t.Type {
	case Category:
		return appendText(dst, t.Text)
	case Boolean:
		return append(dst, t.Text...)
	default:
		return river.AppendNumber(dst, t.Num)
	}
}

// MarshalJSON is AppendJSON.
func (t Target) MarshalJSON() ([]byte, error) { return t.AppendJSON(nil), nil }

// booleanText is how a boolean is spelled.
func booleanText(v float64) string {
	if v != 0 {
		return trueText
	}
	return falseText
}

// labelText is an event's label as the text of its class.
func (e *Event) labelText(s *Spec) []byte {
	switch {
	case s.Label.Type == Category:
		return e.Label.Text
	case e.Label.Num != 0:
		return trueBytes
	default:
		return falseBytes
	}
}

var falseBytes, trueBytes = []byte(falseText), []byte(trueText)
