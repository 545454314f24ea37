package model

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// MaxBatch is how many events a message may hold.
const MaxBatch = 1000

// maxID is how many bytes an event's own id may have.
const maxID = 256

// Value is what an event has for one input.
type Value struct {
	Num  float64
	Text []byte // of a category; a view that lives until the decoder is used again
	Null bool
}

// Row is an event's attributes, in the order of Spec.Inputs.
type Row []Value

// Event is one learn event. If it has problems, it is bad and the rest of it
// is not to be used.
type Event struct {
	Row      Row
	Label    []byte
	ID       []byte // the event's own id, nil if it has none
	Problems []Problem
}

// Problem is one thing that is wrong with an input, and its place in it.
type Problem struct {
	Loc  []any  `json:"loc"` // keys and indexes
	Msg  string `json:"msg"`
	Type string `json:"type"`
}

func (p Problem) String() string {
	if len(p.Loc) == 0 || p.Type == "json_invalid" {
		return p.Msg
	}
	var loc []string
	for _, l := range p.Loc {
		loc = append(loc, fmt.Sprint(l))
	}
	return strings.Join(loc, ".") + ": " + p.Msg
}

// InvalidError says all that is wrong with an input.
type InvalidError struct{ Problems []Problem }

func (e *InvalidError) Error() string {
	if n := len(e.Problems); n > 1 {
		return fmt.Sprintf("%s (and %d more)", e.Problems[0], n-1)
	}
	return e.Problems[0].String()
}

// Decoder reads requests and events by a spec. What it returns lives until it
// is used again, and good input costs no allocation. It is not safe for
// concurrent use.
type Decoder struct {
	spec   *Spec
	index  map[string]int // of an input, by its name
	reader reader
	values []Value // the rows of all events, one after the other
	events []Event
	found  int // problems of this message
	seen   []bool
}

// NewDecoder makes a decoder for a spec.
func NewDecoder(s *Spec) *Decoder {
	d := &Decoder{spec: s, index: make(map[string]int, len(s.Inputs)), seen: make([]bool, len(s.Inputs))}
	for i := range s.Inputs {
		d.index[s.Inputs[i].Name] = i
	}
	return d
}

func (d *Decoder) reset(data []byte) {
	d.reader.reset(data)
	d.values, d.events, d.found = d.values[:0], d.events[:0], 0
}

// place is where in an input a value stands. It makes a Loc only when
// something is wrong.
type place struct {
	index      int // of the event in a batch, -1 if there is none
	attributes bool
	name       string
}

func (p place) loc() []any {
	loc := []any{}
	if p.index >= 0 {
		loc = append(loc, p.index)
	}
	if p.attributes {
		loc = append(loc, "attributes")
	}
	if p.name != "" {
		loc = append(loc, p.name)
	}
	return loc
}

// problem adds a problem to an event. A bad event has one at least; past
// maxProblem of a message, no more than one.
func (d *Decoder) problem(e *Event, at place, kind, msg string) {
	if d.found++; d.found <= maxProblem || len(e.Problems) == 0 {
		e.Problems = append(e.Problems, Problem{Loc: at.loc(), Msg: msg, Type: kind})
	}
}

// Attributes reads a predict request. The error is an *InvalidError with all
// problems.
func (d *Decoder) Attributes(data []byte) (Row, error) {
	d.reset(data)
	e := d.newEvent()
	d.attributes(e, place{index: -1})
	d.reader.end()
	if d.reader.err != nil {
		return nil, &InvalidError{[]Problem{*d.reader.err}}
	}
	if len(e.Problems) > 0 {
		return nil, &InvalidError{e.Problems}
	}
	return e.Row, nil
}

// Learn reads a learn event, or an array of 1 to MaxBatch of them (batch).
// An *InvalidError means that the message is bad as a whole; otherwise each
// event is good or has problems, which for a batch begin with its index.
func (d *Decoder) Learn(data []byte) (events []Event, batch bool, err error) {
	d.reset(data)
	r := &d.reader
	if batch = r.next() == '['; batch {
		r.enter()
		for first := true; r.more(first, ']'); first = false {
			if len(d.events) == MaxBatch {
				return nil, true, whole("too_long", "List should have at most %d items after validation", MaxBatch)
			}
			d.event(len(d.events))
		}
	} else {
		d.event(-1)
	}
	r.end()
	if r.err != nil {
		return nil, batch, &InvalidError{[]Problem{*r.err}}
	}
	if len(d.events) == 0 {
		return nil, true, whole("too_short", "List should have at least 1 item after validation")
	}
	return d.events, batch, nil
}

func whole(kind, format string, args ...any) error {
	return &InvalidError{[]Problem{{Loc: []any{}, Msg: fmt.Sprintf(format, args...), Type: kind}}}
}

// newEvent takes the next event and row from the decoder's own, which keep
// their memory.
func (d *Decoder) newEvent() *Event {
	n := len(d.spec.Inputs)
	if len(d.values)+n > cap(d.values) {
		// The rows handed out before stay where they are.
		d.values = make([]Value, 0, max(n, 2*cap(d.values)))
	}
	from := len(d.values)
	d.values = d.values[:from+n]
	d.events = append(d.events, Event{Row: d.values[from : from+n : from+n]})
	return &d.events[len(d.events)-1]
}

const notObject = "Input should be a valid dictionary or object to extract fields from"

// event reads one learn event.
func (d *Decoder) event(index int) {
	e, r := d.newEvent(), &d.reader
	if r.next() != '{' {
		r.skip()
		d.problem(e, place{index: index}, "model_attributes_type", notObject)
		return
	}
	var attributes, label bool
	twice := r.object(func(key []byte) {
		switch {
		case string(key) == "attributes":
			attributes = true
			d.attributes(e, place{index: index, attributes: true})
		case string(key) == d.spec.Label.Name:
			label = true
			at := place{index: index, name: d.spec.Label.Name}
			v := d.value(e, &d.spec.Label, at)
			e.Label = v.Text
		case string(key) == "id":
			d.id(e, place{index: index, name: "id"})
		default:
			d.extra(e, index, key)
		}
	})
	if !attributes {
		d.problem(e, place{index: index, attributes: true}, "missing", "Field required")
	}
	if !label {
		d.problem(e, place{index: index, name: d.spec.Label.Name}, "missing", "Field required")
	}
	d.duplicate(e, place{index: index}, twice)
}

func (d *Decoder) extra(e *Event, index int, key []byte) {
	if twice := d.reader.skip(); twice != nil {
		d.duplicate(e, place{index: index, name: string(key)}, twice)
	}
}

func (d *Decoder) duplicate(e *Event, at place, key []byte) {
	if key != nil {
		d.problem(e, at, "duplicate_key", "The key "+strconv.Quote(string(key))+" is given twice")
	}
}

// attributes reads the object that holds a row.
func (d *Decoder) attributes(e *Event, at place) {
	r := &d.reader
	if r.next() != '{' {
		r.skip()
		d.problem(e, at, "model_attributes_type", notObject)
		return
	}
	clear(d.seen)
	twice := r.object(func(key []byte) {
		i, known := d.index[string(key)]
		if !known {
			if within := r.skip(); within != nil {
				d.duplicate(e, place{at.index, at.attributes, string(key)}, within)
			}
			return
		}
		d.seen[i] = true
		f := &d.spec.Inputs[i]
		e.Row[i] = d.value(e, f, place{at.index, at.attributes, f.Name})
	})
	for i, seen := range d.seen {
		if !seen {
			d.problem(e, place{at.index, at.attributes, d.spec.Inputs[i].Name}, "missing", "Field required")
		}
	}
	d.duplicate(e, at, twice)
}

// value reads a field's value and checks it.
func (d *Decoder) value(e *Event, f *Field, at place) Value {
	r := &d.reader
	b := r.next()
	switch {
	case b == 'n' && f.Nullable:
		r.literal("null")
		return Value{Null: true}
	case f.Type == Category && b == '"':
		text := r.text()
		if len(text) > f.MaxBytes {
			d.problem(e, at, "string_too_long", fmt.Sprintf("String should have at most %d bytes", f.MaxBytes))
		}
		return Value{Text: text}
	case f.Type == Number && (b == '-' || '0' <= b && b <= '9'):
		return d.number(e, f, at)
	}
	within := r.skip()
	if f.Type == Number {
		d.problem(e, at, "float_type", "Input should be a valid number")
	} else {
		d.problem(e, at, "string_type", "Input should be a valid string")
	}
	d.duplicate(e, at, within)
	return Value{Null: true}
}

func (d *Decoder) number(e *Event, f *Field, at place) Value {
	v, ok := d.reader.number()
	switch {
	case !ok:
		d.problem(e, at, "finite_number", "Input should be a finite number")
	case v < f.Min:
		d.problem(e, at, "greater_than_equal", "Input should be greater than or equal to "+shortest(f.Min))
	case v > f.Max:
		d.problem(e, at, "less_than_equal", "Input should be less than or equal to "+shortest(f.Max))
	}
	return Value{Num: v}
}

func shortest(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// id reads an event's own id; null is none.
func (d *Decoder) id(e *Event, at place) {
	r := &d.reader
	switch r.next() {
	case 'n':
		r.literal("null")
	case '"':
		if e.ID = r.text(); len(e.ID) == 0 || len(e.ID) > maxID {
			d.problem(e, at, "id_length", fmt.Sprintf("An id should have 1 to %d bytes", maxID))
		}
	default:
		within := r.skip()
		d.problem(e, at, "string_type", "Input should be a valid string")
		d.duplicate(e, at, within)
	}
}

// AppendLearn appends a learn event as JSON: a row, a label and, if it is not
// nil, the event's own id.
func AppendLearn(dst []byte, s *Spec, row Row, label, id []byte) []byte {
	dst = append(dst, `{"attributes":{`...)
	for i := range s.Inputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, s.Inputs[i].Name), ':')
		switch v := &row[i]; {
		case v.Null:
			dst = append(dst, "null"...)
		case s.Inputs[i].Type == Category:
			dst = appendText(dst, string(v.Text))
		default:
			dst = appendNumber(dst, v.Num)
		}
	}
	dst = append(appendText(append(dst, `},`...), s.Label.Name), ':')
	dst = appendText(dst, string(label))
	if id != nil {
		dst = appendText(append(dst, `,"id":`...), string(id))
	}
	return append(dst, '}')
}

func appendText(dst []byte, text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err) // texts always marshal
	}
	return append(dst, quoted...)
}

// appendNumber writes the shortest digits that read back as the same double.
func appendNumber(dst []byte, v float64) []byte {
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}
