package model

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"lockstep/model/river"
)

// MaxBatch is how many events a message may hold.
const MaxBatch = 1000

// maxID is how many bytes an event's own id may have.
const maxID = 256

// Value is what an event has for one input.
type Value struct {
	Num  float64 // of a number, never -0, NaN or infinite; of a boolean 0 or 1
	Text []byte  // of a category; a view, valid until the decoder's next call
	Null bool
}

// Row is an event's attributes, in the order of Spec.Inputs.
type Row []Value

// Event is one learn event. If it has problems it is bad, and the rest of it
// is not to be used.
type Event struct {
	Row      Row
	Label    Value
	ID       []byte // the event's own id, nil if it has none
	Problems []Problem
}

// Problem is one thing that is wrong with an input. Its words are pydantic's
// where pydantic has some. The type of an event's first problem is part of
// the replicated semantics; the message is for people and may change.
type Problem struct {
	Loc  []any  `json:"loc"` // the way to the place: keys (string) and indexes (int)
	Msg  string `json:"msg"`
	Type string `json:"type"`
}

// String is the problem as one line, as in "attributes.sex: Field required".
func (p Problem) String() string {
	if len(p.Loc) == 0 || p.Type == "json_invalid" {
		return p.Msg // which names the place
	}
	var b strings.Builder
	for i, part := range p.Loc {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(onLine(fmt.Sprint(part)))
	}
	return b.String() + ": " + p.Msg
}

// onLine quotes a key that would not read well on a line. Keys come from
// strangers and the line may end in a header or a terminal, so no control
// character may pass.
func onLine(key string) string {
	if quoted := strconv.Quote(key); key == "" || len(quoted) != len(key)+2 {
		return quoted
	}
	return key
}

// InvalidError says all that is wrong with an input: one problem at least.
type InvalidError struct{ Problems []Problem }

// Error is one line: the first problem, and how many more there are.
func (e *InvalidError) Error() string {
	if more := len(e.Problems) - 1; more > 0 {
		return fmt.Sprintf("%s (and %d more)", e.Problems[0], more)
	}
	return e.Problems[0].String()
}

// Decoder reads requests and events by a spec. What it returns is valid until
// its next call, and as long as the bytes it was given are not changed. Once
// warm it does not allocate for good input, unless a number has more than 32
// characters. It is not safe for concurrent use.
type Decoder struct {
	spec   *Spec
	inputs map[string]int // an input's place, by its name
	reader reader
	events []Event
	values []Value // the rows of all events, one after the other
	seen   []bool  // by input: the object being read has it
	plain  plainKeys

	// A good request mostly has the keys in the spec's order: next is the
	// input to try before inputs is asked.
	next int
}

// NewDecoder makes a decoder for a spec.
func NewDecoder(s *Spec) *Decoder {
	d := &Decoder{
		spec: s, inputs: make(map[string]int, len(s.Inputs)), seen: make([]bool, len(s.Inputs)),
		plain: newPlainKeys(s),
	}
	for i := range s.Inputs {
		d.inputs[s.Inputs[i].Name] = i
	}
	return d
}

func (d *Decoder) reset(data []byte) {
	d.reader.reset(data)
	d.values, d.events = d.values[:0], d.events[:0]
}

// Attributes reads a predict request: an object with the spec's inputs. The
// error is an *InvalidError with all problems; a syntax error stands alone.
func (d *Decoder) Attributes(data []byte) (Row, error) {
	d.reset(data)
	row := d.row()
	if !d.plainRow(row) {
		clear(row)
		d.attributes(row)
	}
	d.reader.end()
	if err := d.invalid(); err != nil {
		return nil, err
	}
	return row, nil
}

// Learn reads a learn event, or an array of 1 to MaxBatch of them (batch).
// The error is an *InvalidError if the message is bad as a whole: a syntax
// error anywhere, neither an object nor an array, no event or too many.
// Otherwise each event is good or has problems; in a batch, their places
// begin with its index.
func (d *Decoder) Learn(data []byte) (events []Event, batch bool, err error) {
	d.reset(data)
	r := &d.reader
	count := 1
	switch r.peek() {
	case '[':
		batch, count = true, d.batch()
	case '{':
		d.event()
	default:
		d.notObject()
	}
	r.end()
	switch {
	case count == 0:
		r.wrong("too_short", "List should have at least 1 item after validation, not 0")
	case count > MaxBatch:
		r.problems = nil // of the events that are too many
		r.wrong("too_long", fmt.Sprintf("List should have at most %d items after validation, not %d", MaxBatch, count))
	}
	if err := d.invalid(); err != nil {
		return nil, batch, err
	}
	n := len(d.spec.Inputs)
	for i := range d.events {
		d.events[i].Row = d.values[i*n : (i+1)*n : (i+1)*n]
	}
	return d.events, batch, nil
}

// invalid is the error of a text that is bad as a whole, or nil.
func (d *Decoder) invalid() error {
	switch r := &d.reader; {
	case r.err != nil:
		return &InvalidError{[]Problem{*r.err}}
	case len(r.problems) > 0:
		return &InvalidError{r.problems}
	}
	return nil
}

// row makes room for the next event's values. An earlier row may move, so
// rows are handed out when all are read.
func (d *Decoder) row() Row {
	from, to := len(d.values), len(d.values)+len(d.spec.Inputs)
	for len(d.values) < to {
		d.values = append(d.values, Value{})
	}
	return d.values[from:to:to]
}

// batch reads an array of events and returns how many it has.
func (d *Decoder) batch() (count int) {
	r := &d.reader
	r.root = 1
	for r.array(); r.element(); count++ {
		if count < MaxBatch {
			d.event()
		} else {
			r.skip() // too many, but its syntax is checked
		}
	}
	r.root = 0
	return count
}

// event reads one learn event, with its problems.
func (d *Decoder) event() {
	d.events = append(d.events, Event{})
	e := &d.events[len(d.events)-1]
	row := d.row()
	if r := &d.reader; r.peek() == '{' {
		if d.plainEvent(e, row) {
			return
		}
		*e = Event{}
		clear(row)
		d.fields(e, row)
	} else {
		d.notObject()
	}
	e.Problems, d.reader.problems = d.reader.problems, nil
}

// fields reads the object of an event.
func (d *Decoder) fields(e *Event, row Row) {
	r := &d.reader
	var attributes, label bool
	for r.object(); r.member(); {
		switch key := r.key(); {
		case string(key) == "attributes":
			attributes = true
			d.attributes(row)
		case string(key) == d.spec.Label.Name:
			label = true
			d.value(&d.spec.Label, &e.Label)
		case string(key) == "id":
			e.ID = d.id()
		default:
			r.skip()
		}
	}
	if r.err != nil {
		return
	}
	if !attributes {
		r.missing("attributes")
	}
	if !label {
		r.missing(d.spec.Label.Name)
	}
}

// attributes reads the object that holds a row.
func (d *Decoder) attributes(row Row) {
	r := &d.reader
	if r.peek() != '{' {
		d.notObject()
		return
	}
	clear(d.seen)
	d.next = 0
	for r.object(); r.member(); {
		i, known := d.input(r.key())
		if !known {
			r.skip()
			continue
		}
		d.seen[i] = true
		d.value(&d.spec.Inputs[i], &row[i])
	}
	if r.err != nil {
		return
	}
	for i, seen := range d.seen {
		switch f := &d.spec.Inputs[i]; {
		case seen:
		case f.Optional:
			row[i].Null = true
		default:
			r.missing(f.Name)
		}
	}
}

// input finds an input by its name.
func (d *Decoder) input(name []byte) (i int, known bool) {
	if i = d.next; i >= len(d.spec.Inputs) || d.spec.Inputs[i].Name != string(name) {
		if i, known = d.inputs[string(name)]; !known {
			return 0, false
		}
	}
	d.next = i + 1
	return i, true
}

// value reads the value of a field and checks it. The value is filled in where
// it stands, for returning it costs a fifth of the whole time.
func (d *Decoder) value(f *Field, v *Value) {
	switch f.Type {
	case Category:
		d.category(f, v)
	case Number:
		d.number(f, v)
	case Boolean:
		d.boolean(f, v)
	case Timestamp:
		d.timestamp(f, v)
	default:
		d.text(f, v)
	}
}

// text reads a text and checks its length.
func (d *Decoder) text(f *Field, v *Value) {
	r := &d.reader
	switch b := r.peek(); {
	case b == '"':
		if v.Text = r.text(); len(v.Text) > f.MaxBytes {
			r.tooLong(f.MaxBytes)
		}
	case b == 'n' && f.Nullable:
		r.literal("null")
		v.Null = true
	default:
		d.notText()
	}
}

// timestamp reads a moment: an RFC 3339 text, or seconds since 1970.
func (d *Decoder) timestamp(f *Field, v *Value) {
	r := &d.reader
	switch b := r.peek(); {
	case b == '"':
		seconds, ok := parseTimestamp(r.text())
		if v.Num = seconds; !ok && r.err == nil {
			r.wrong("datetime_parsing", momentWanted)
		}
	case beginsNumber(b), b == 'n' && f.Nullable:
		d.number(f, v)
	default:
		r.wrong("datetime_type", momentWanted)
		r.skip()
	}
}

// boolean reads true or false.
func (d *Decoder) boolean(f *Field, v *Value) {
	r := &d.reader
	switch b := r.peek(); {
	case b == 't':
		r.literal("true")
		v.Num = 1
	case b == 'f':
		r.literal("false")
	case b == 'n' && f.Nullable:
		r.literal("null")
		v.Null = true
	default:
		r.wrong("bool_type", "Input should be a valid boolean")
		r.skip()
	}
}

// category reads a category's value and checks it.
func (d *Decoder) category(f *Field, v *Value) {
	before := len(d.reader.problems)
	if r := &d.reader; f.Integers && beginsNumber(r.peek()) {
		if v.Text = r.numeral(); r.err == nil && !isInteger(v.Text) {
			r.wrong("int_type", "Input should be a text or a whole number of at most 15 digits")
			return
		}
	} else {
		d.text(f, v)
	}
	if f.Values != nil && !v.Null && len(d.reader.problems) == before && !f.takes(v.Text) {
		d.reader.wrong("literal_error", "Input should be "+oneOf(f.Values))
	}
}

// isInteger reports whether a JSON number is spelled as a whole one.
func isInteger(text []byte) bool {
	digits := bytes.TrimPrefix(text, []byte{'-'})
	for _, b := range digits {
		if b < '0' || b > '9' {
			return false
		}
	}
	return len(digits) <= 15 && string(text) != "-0"
}

// takes reports whether a closed vocabulary has a value.
func (f *Field) takes(text []byte) bool {
	for _, value := range f.Values {
		if value == string(text) {
			return true
		}
	}
	return false
}

// oneOf lists values as pydantic does; of many the first few.
func oneOf(values []string) string {
	const most = 8
	var b strings.Builder
	for i, value := range values[:min(len(values), most)] {
		switch {
		case i == 0:
		case i == len(values)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString("'" + value + "'")
	}
	if len(values) > most {
		fmt.Fprintf(&b, " or one of %d others", len(values)-most)
	}
	return b.String()
}

// number reads a number's value and checks it.
func (d *Decoder) number(f *Field, v *Value) {
	r := &d.reader
	switch b := r.peek(); {
	case beginsNumber(b):
		switch v.Num = d.double(); {
		case v.Num < f.Min:
			r.wrong("greater_than_equal", "Input should be greater than or equal to "+river.Shortest(f.Min))
		case v.Num > f.Max:
			r.wrong("less_than_equal", "Input should be less than or equal to "+river.Shortest(f.Max))
		}
	case b == 'n' && f.Nullable:
		r.literal("null")
		v.Null = true
	default:
		r.wrong("float_type", "Input should be a valid number")
		r.skip()
	}
}

// double reads a number, rounded to the nearest double. If there is none, it
// reports that and returns NaN, which no bound holds against.
func (d *Decoder) double() float64 {
	r := &d.reader
	text := r.numeral()
	if r.err != nil {
		return math.NaN()
	}
	if len(text) > maxNumeral {
		r.wrong("number_too_long", fmt.Sprintf("Number should have at most %d characters", maxNumeral))
		return math.NaN()
	}
	v, ok := quick(text)
	if !ok {
		var err error
		if v, err = strconv.ParseFloat(string(text), 64); err != nil { // the copy is on the stack
			r.wrong("finite_number", "Input should be a finite number")
			return math.NaN()
		}
	}
	if v == 0 {
		return 0 // whatever its sign
	}
	return v
}

// id reads an event's own id; null is none.
func (d *Decoder) id() []byte {
	r := &d.reader
	switch r.peek() {
	case '"':
		id := r.text()
		if len(id) == 0 && r.err == nil {
			r.wrong("string_too_short", "String should have at least 1 byte")
		} else if len(id) > maxID {
			r.tooLong(maxID)
		}
		return id
	case 'n':
		r.literal("null")
	default:
		d.notText()
	}
	return nil
}

func (r *reader) tooLong(most int) {
	r.wrong("string_too_long", fmt.Sprintf("String should have at most %d bytes", most))
}

func (d *Decoder) notText() {
	d.reader.wrong("string_type", "Input should be a valid string")
	d.reader.skip()
}

func (d *Decoder) notObject() {
	d.reader.wrong("model_attributes_type", "Input should be a valid dictionary or object to extract fields from")
	d.reader.skip()
}

// AppendLearn appends a learn event as JSON: a row, a label and, unless it is
// nil, the event's own id. The keys stand in the spec's order, so equal
// events have equal bytes. It does not check: Learn refuses what is not UTF-8
// or not finite, and what the spec does not allow.
func AppendLearn(dst []byte, s *Spec, row Row, label Value, id []byte) []byte {
	dst = append(dst, `{"attributes":{`...)
	for i := range s.Inputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, s.Inputs[i].Name), ':')
		dst = appendValue(dst, s.Inputs[i].Type, &row[i])
	}
	dst = append(appendText(append(dst, `},`...), s.Label.Name), ':')
	dst = appendValue(dst, s.Label.Type, &label)
	if id != nil {
		dst = appendText(append(dst, `,"id":`...), string(id))
	}
	return append(dst, '}')
}

// appendValue appends a value as JSON.
func appendValue(dst []byte, t FieldType, v *Value) []byte {
	switch {
	case v.Null:
		return append(dst, "null"...)
	case t.IsText():
		return appendText(dst, string(v.Text))
	case t == Boolean:
		return append(dst, booleanText(v.Num)...)
	default:
		return river.AppendNumber(dst, v.Num)
	}
}
