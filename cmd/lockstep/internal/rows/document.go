package rows

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"lockstep/model"
)

// lenient has the JSON reader pass on what the model's own decoder refuses
// with its place: bytes that are not UTF-8, and keys that come twice.
var lenient = []jsontext.Options{jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)}

// lines reads JSON lines: an event on each, or a row with the spec's names.
type lines struct {
	text  *bufio.Reader
	shape *shape
	line  int
	data  []byte
}

func newLines(text *bufio.Reader, s *model.Spec, names map[string]string) *lines {
	return &lines{text: text, shape: newShape(s, names)}
}

func (l *lines) row() (Row, error) {
	for {
		whole, err := l.read()
		row := Row{Line: l.line}
		switch {
		case err != nil:
			return Row{}, err
		case !whole:
			row.Problem = fmt.Sprintf("the line is longer than %d bytes", MaxRow)
			return row, nil
		}
		if data := bytes.TrimSpace(l.data); len(data) > 0 {
			row.Data = l.shape.event(data)
			return row, nil
		}
	}
}

// read reads a line. Of one that is too long it keeps nothing.
func (l *lines) read() (whole bool, err error) {
	l.line++
	l.data = l.data[:0]
	whole, any := true, false
	for {
		part, err := l.text.ReadSlice('\n')
		any = any || len(part) > 0
		if len(l.data)+len(part) > MaxRow {
			whole, l.data = false, l.data[:0]
		}
		if whole {
			l.data = append(l.data, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case ended(err) && any, err == nil:
			return whole, nil
		case ended(err):
			return false, err
		default:
			return false, &FileError{l.line, err}
		}
	}
}

// isDocument reports whether a first line of JSON is no row by itself, but
// the beginning of an array of rows, or of a row over several lines. An array
// on a line can be a batch, where those are wanted.
func isDocument(line []byte, batches bool) bool {
	if len(line) > 0 && line[0] == '[' && !(batches && bytes.Contains(line, []byte(`"attributes"`))) {
		return true
	}
	d := jsontext.NewDecoder(bytes.NewReader(line), lenient...)
	_, err := d.ReadValue()
	return errors.Is(err, io.ErrUnexpectedEOF)
}

// document reads JSON arrays of rows, and rows one after the other, each over
// as many lines as it likes. It holds one row at a time.
type document struct {
	decoder *jsontext.Decoder
	text    *counted
	shape   *shape
	array   bool // inside of an array of rows
}

func newDocument(text *bufio.Reader, s *model.Spec, names map[string]string) *document {
	c := &counted{text: text, line: 1}
	return &document{decoder: jsontext.NewDecoder(c, lenient...), text: c, shape: newShape(s, names)}
}

func (d *document) row() (Row, error) {
	d.text.allowed = MaxRow
	for {
		kind := d.decoder.PeekKind()
		if bracket := kind == '[' && !d.array || kind == ']' && d.array; !bracket {
			break
		}
		if _, err := d.decoder.ReadToken(); err != nil {
			return Row{}, d.failed(err)
		}
		d.array = kind == '['
	}
	value, err := d.decoder.ReadValue()
	if ended(err) {
		return Row{}, io.EOF
	} else if err != nil {
		return Row{}, d.failed(err)
	}
	row := Row{Line: d.text.lineAt(d.decoder.InputOffset() - int64(len(value)))}
	row.Data = d.shape.event(value)
	return row, nil
}

// failed says where a document cannot be read on.
func (d *document) failed(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntax):
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the JSON is cut off here")
		} else {
			err = fmt.Errorf("the JSON is broken here, and cannot be read on: %w", syntax.Err)
		}
		return &FileError{d.text.lineAt(syntax.ByteOffset), err}
	case d.text.err != nil:
		err = d.text.err
	}
	return &FileError{d.text.lineAt(d.decoder.InputOffset()), err}
}

var errLongRow = fmt.Errorf("the row is longer than %d bytes", MaxRow)

// counted knows the line of each byte that was read lately, and ends a row
// that is too long.
type counted struct {
	text    *bufio.Reader
	allowed int // bytes that may still be read for this row
	offset  int64
	breaks  []int64 // offsets of the line feeds that lineAt has not passed
	line    int     // of the bytes before the first of breaks
	err     error   // why reading failed
}

func (c *counted) Read(p []byte) (int, error) {
	if c.allowed <= 0 {
		c.err = errLongRow
		return 0, c.err
	}
	n, err := c.text.Read(p)
	if err != nil && !ended(err) {
		c.err = err
	}
	c.allowed -= n
	for i, b := range p[:n] {
		if b == '\n' {
			c.breaks = append(c.breaks, c.offset+int64(i))
		}
	}
	c.offset += int64(n)
	return n, err
}

// lineAt is the line of a byte. Offsets never go back.
func (c *counted) lineAt(offset int64) int {
	passed, _ := slices.BinarySearch(c.breaks, offset)
	c.line += passed
	c.breaks = slices.Delete(c.breaks, 0, passed)
	return c.line
}

// shape makes events of rows that have their attributes and their label side
// by side, as other programs write them. An event stays as it is.
type shape struct {
	spec   *model.Spec
	names  map[string]string // the columns' other names
	inputs map[string]bool
	reader *bytes.Reader
	json   *jsontext.Decoder
	flat   []byte
}

func newShape(s *model.Spec, names map[string]string) *shape {
	h := &shape{spec: s, names: names, inputs: map[string]bool{}, reader: bytes.NewReader(nil)}
	for _, f := range s.Inputs {
		h.inputs[f.Name] = true
	}
	h.json = jsontext.NewDecoder(h.reader, lenient...)
	return h
}

// member is a member of a JSON object.
type member struct {
	name  string
	value []byte // as it stands
}

// members are those of an object. What is none, or has none, has none; what is
// wrong with it the check says.
func (h *shape) members(object []byte) (all []member) {
	h.reader.Reset(object)
	h.json.Reset(h.reader, lenient...)
	if token, err := h.json.ReadToken(); err != nil || token.Kind() != '{' {
		return nil
	}
	for h.json.PeekKind() == '"' {
		name, err := h.json.ReadToken()
		if err != nil {
			return nil
		}
		m := member{name: name.String()}
		value, err := h.json.ReadValue()
		if err != nil {
			return nil
		}
		end := h.json.InputOffset()
		m.value = object[end-int64(len(value)) : end]
		all = append(all, m)
	}
	if _, err := h.json.ReadToken(); err != nil {
		return nil
	}
	return all
}

// event is a row as a learn event: a row that is none yet, or whose columns
// have other names, is written again, with every value as it stands.
func (h *shape) event(data []byte) []byte {
	nested := bytes.HasPrefix(data, []byte(`{"attributes"`))
	if nested && len(h.names) == 0 {
		return data
	}
	all := h.members(data)
	attributes := slices.IndexFunc(all, func(m member) bool { return m.name == "attributes" })
	switch {
	case attributes >= 0 && len(h.names) == 0:
		return data
	case attributes >= 0:
		return h.write(h.members(all[attributes].value), all, "id")
	case slices.ContainsFunc(all, func(m member) bool { return h.inputs[h.name(m)] }):
		return h.write(all, all, "")
	}
	return data
}

// name is what the spec calls a member.
func (h *shape) name(m member) string {
	if name, ok := h.names[m.name]; ok {
		return name
	}
	for _, name := range h.names { // order: any
		if name == m.name {
			return "" // another column has its name
		}
	}
	return m.name
}

// write writes an event of the inputs among some members, and of the label and
// what is called id among others. A key that comes twice stays twice, for the
// check to refuse.
func (h *shape) write(row, rest []member, id string) []byte {
	flat := append(h.flat[:0], `{"attributes":{`...)
	first := true
	for _, m := range row {
		if name := h.name(m); h.inputs[name] {
			if !first {
				flat = append(flat, ',')
			}
			first = false
			flat = append(append(appendText(flat, name), ':'), m.value...)
		}
	}
	flat = append(flat, '}')
	for _, m := range rest {
		if name := h.name(m); name == h.spec.Label.Name || name != "" && name == id {
			flat = append(flat, ',')
			flat = append(append(appendText(flat, name), ':'), m.value...)
		}
	}
	h.flat = append(flat, '}')
	return h.flat
}

// Value is what a row has at the place of a problem: the column's name, and
// its value as it can be shown. It is empty where the row has none.
func (r *Row) Value(s *model.Spec, loc []any) (column, value string) {
	if len(loc) == 0 {
		return "", ""
	}
	name, _ := loc[len(loc)-1].(string)
	if r.table != nil {
		for i, known := range used(s) {
			if at := r.table.columns[i]; known == name && at < len(r.cells) {
				return Show(r.table.header[at]), quote(string(r.cells[at].text))
			}
		}
		return "", ""
	}
	h := newShape(s, nil)
	data := r.Data
	for _, part := range loc {
		key, ok := part.(string)
		found := h.members(data)
		i := slices.IndexFunc(found, func(m member) bool { return m.name == key })
		if !ok || i < 0 {
			return "", ""
		}
		data = found[i].value
	}
	return Show(name), shownJSON(data)
}

// shownJSON is a JSON value as it can be shown: strings keep their quotes.
func shownJSON(value []byte) string {
	if len(value) > 0 && value[0] == '"' {
		if text, err := jsontext.AppendUnquote(nil, value); err == nil {
			return quote(string(text))
		}
	}
	return Show(string(value))
}
