package rows

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"lockstep/model"
)

// cell is one value of a row of a table.
type cell struct {
	text   []byte
	quoted bool
}

// table reads a CSV file with a header. encoding/csv would do, but it does not
// say which values were quoted, and keeps a row in memory however long it is.
type table struct {
	text  *bufio.Reader
	comma byte
	line  int // that the next byte is on

	returned bool // the last byte was a carriage return that ended a record

	spec    *model.Spec
	columns []int    // of the inputs and then the label
	header  []string // the columns' names
	na      []string
	decimal string

	buffer []byte
	ends   []int  // of the cells in the buffer
	quoted []bool // of the cells
	cells  []cell
	event  []byte
}

func newTable(text *bufio.Reader, s *model.Spec, names map[string]string, o Options) (*table, error) {
	t := &table{text: text, comma: comma(text), line: 1, spec: s, na: o.NA, decimal: o.Decimal}
	row, err := t.read()
	switch {
	case ended(err):
		return nil, &FileError{0, fmt.Errorf("the file is empty: a CSV file begins with a header")}
	case err != nil:
		return nil, err
	case row.Problem != "":
		return nil, &FileError{row.Line, fmt.Errorf("the header: %s", row.Problem)}
	}
	for _, c := range row.cells {
		t.header = append(t.header, string(c.text))
	}
	if slices.ContainsFunc(t.header, func(column string) bool { return strings.ContainsRune(column, 0) }) {
		return nil, &FileError{row.Line, fmt.Errorf("the file is not text: its header has the byte 0")}
	}
	return t, t.choose(names)
}

// choose finds the column of each input, and of the label.
func (t *table) choose(names map[string]string) error {
	at, mapped := map[string][]int{}, map[string]bool{}
	for _, name := range names { // order: a set
		mapped[name] = true
	}
	for i, column := range t.header {
		if name, ok := names[column]; ok {
			at[name] = append(at[name], i)
		} else if !mapped[column] {
			at[column] = append(at[column], i)
		}
	}
	for _, column := range slices.Sorted(maps.Keys(names)) {
		if !slices.Contains(t.header, column) {
			return optionError("--map: the file has no column %s; it has: %s", Show(column), t.shownHeader())
		}
	}
	var missing, hints []string
	for _, name := range used(t.spec) {
		switch found := at[name]; len(found) {
		case 0:
			missing = append(missing, name)
			if i := slices.IndexFunc(t.header, func(c string) bool { return c != name && strings.EqualFold(c, name) }); i >= 0 {
				hints = append(hints, fmt.Sprintf("--map %s=%s", Show(t.header[i]), name))
			}
			t.columns = append(t.columns, -1)
		case 1:
			t.columns = append(t.columns, found[0])
		default:
			return optionError(
				"the CSV header has the column %s twice, as its columns %d and %d", Show(t.header[found[0]]),
				found[0]+1, found[1]+1,
			)
		}
	}
	if len(missing) > 0 {
		hint := "--map COLUMN=" + missing[0] + " gives a column another name"
		if len(hints) > 0 {
			hint = "give " + strings.Join(hints, " ")
		} else if !utf8.ValidString(strings.Join(t.header, "")) {
			hint = "it is not UTF-8: --encoding says what it is, " + strings.Join(Encodings[1:], ", ")
		}
		return optionError(
			"the CSV header has no column %s; it has: %s (%s)", strings.Join(missing, ", "), t.shownHeader(), hint,
		)
	}
	return nil
}

// maxHeader is how many bytes of a header an error shows.
const maxHeader = 600

func (t *table) shownHeader() string {
	var b strings.Builder
	for i, column := range t.header {
		if b.Len() > maxHeader {
			fmt.Fprintf(&b, ", and %d more", len(t.header)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Show(column))
	}
	return b.String()
}

// comma is what the first line has most of outside of quotes: commas, tabs or
// semicolons.
func comma(text *bufio.Reader) byte {
	count := map[byte]int{}
	quoted := false
	for _, b := range firstLine(text) {
		if b == '"' {
			quoted = !quoted
		} else if !quoted {
			count[b]++
		}
	}
	best := byte(',')
	for _, other := range []byte("\t;") {
		if count[other] > count[best] {
			best = other
		}
	}
	return best
}

// row is the next row as an event.
func (t *table) row() (Row, error) {
	row, err := t.read()
	if err != nil || row.Problem != "" {
		return row, err
	}
	row.table = t
	if len(row.cells) != len(t.header) {
		row.Problem = fmt.Sprintf("wrong number of fields: %d, and the header has %d", len(row.cells), len(t.header))
		return row, nil
	}
	event := append(t.event[:0], `{"attributes":{`...)
	last := len(t.columns) - 1
	for i, f := range append(t.spec.Inputs[:last:last], t.spec.Label) {
		switch {
		case i == last:
			event = append(event, "},"...)
		case i > 0:
			event = append(event, ',')
		}
		c := row.cells[t.columns[i]]
		if !utf8.Valid(c.text) {
			row.Problem = fmt.Sprintf(
				"column %s is %s, which is not in the file's encoding: --encoding says which it is (%s)",
				Show(t.header[t.columns[i]]), quote(string(c.text)), strings.Join(Encodings, ", "),
			)
			return row, nil
		}
		event = append(appendText(event, f.Name), ':')
		event = t.value(event, f, c)
	}
	t.event = append(event, '}')
	row.Data = t.event
	return row, nil
}

// value appends a cell as JSON. What means null is only what the cell shows
// unquoted, but a number cannot be a text, so there quotes are mere
// punctuation. A number that is none stays a text, for the check to refuse.
func (t *table) value(dst []byte, f model.Field, c cell) []byte {
	number := f.Type == model.Number || f.Type == model.Boolean || f.Type == model.Timestamp
	text := c.text
	if number {
		text = bytes.TrimSpace(text)
	}
	if (!c.quoted || number) && (len(text) == 0 || slices.Contains(t.na, string(text))) {
		return append(dst, "null"...)
	}
	switch f.Type {
	case model.Number, model.Timestamp:
		if v, ok := parseNumber(string(text), t.decimal); ok {
			return strconv.AppendFloat(dst, v, 'g', -1, 64)
		}
	case model.Boolean:
		switch strings.ToLower(string(text)) {
		case "true", "1":
			return append(dst, "true"...)
		case "false", "0":
			return append(dst, "false"...)
		}
	}
	return appendText(dst, string(c.text))
}

// parseNumber reads a decimal number. It takes nothing that other readers
// would not: no hexadecimal, no infinity, and with a decimal comma no point,
// which could part thousands.
func parseNumber(text, decimal string) (float64, bool) {
	if decimal == "," {
		if strings.Contains(text, ".") {
			return 0, false
		}
		text = strings.Replace(text, ",", ".", 1)
	}
	for i := range len(text) {
		if strings.IndexByte("0123456789+-.eE", text[i]) < 0 {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil
}

// appendText appends a text that is UTF-8 as a JSON string.
func appendText(dst []byte, text string) []byte {
	dst, _ = jsontext.AppendQuote(dst, text) // fails only where it is not UTF-8
	return dst
}

// read reads one record. Its cells are valid until the next.
func (t *table) read() (Row, error) {
	for {
		row, err := t.record()
		blank := len(row.cells) == 1 && !row.cells[0].quoted && len(row.cells[0].text) == 0
		if err != nil || row.Problem != "" || !blank {
			return row, err
		}
	}
}

// Where in a cell a reader is.
const (
	before  = iota // its first character, or in the space before it
	plain          // in an unquoted value
	inside         // between quotes
	closing        // behind a quote that may end the value, or stand for one
	after          // in the space behind a quoted value
)

// record reads one record, a blank line too. A record ends with a line feed, a
// carriage return, or both.
func (t *table) record() (Row, error) {
	t.buffer, t.ends, t.quoted = t.buffer[:0], t.ends[:0], t.quoted[:0]
	p := parser{table: t, row: Row{Line: t.line}}
	for {
		b, err := t.text.ReadByte()
		if ended(err) {
			return p.end()
		} else if err != nil {
			return Row{}, &FileError{t.line, err}
		}
		if b == '\n' && t.returned && !p.any {
			t.returned = false
			continue // its carriage return has ended the record before
		}
		t.returned = b == '\r' && p.state != inside
		if t.returned {
			b = '\n'
		}
		if p.any = true; b == '\n' {
			t.line++
		}
		if p.step(b) {
			return p.finish(), nil
		}
	}
}

// parser reads the bytes of one record.
type parser struct {
	*table
	row   Row
	state int
	any   bool // there was a byte
	size  int  // bytes of the record
}

// step takes one byte, and reports whether it ended the record.
func (p *parser) step(b byte) bool {
	if b == '\n' && p.state != inside {
		p.endCell()
		return true
	}
	if p.size++; p.size > MaxRow && p.row.Problem == "" {
		p.refuse("the row is longer than %d bytes", MaxRow)
	}
	switch p.state {
	case before:
		switch {
		case b == p.comma:
			p.endCell()
		case b == ' ' || b == '\t':
		case b == '"':
			p.state = inside
		default:
			p.state = plain
			p.keep(b)
		}
	case plain:
		switch {
		case b == p.comma:
			p.endCell()
		case b == '"':
			p.refuse(`a " stands in a value that does not begin with one: put the value in quotes, and double those in it`)
			p.keep(b)
		default:
			p.keep(b)
		}
	case inside:
		if b == '"' {
			p.state = closing
		} else {
			p.keep(b)
		}
	default: // closing, after
		switch {
		case b == '"' && p.state == closing:
			p.state = inside
			p.keep(b)
		case b == p.comma:
			p.endCell()
		case b == ' ' || b == '\t':
			p.state = after
		default:
			p.refuse(`something follows the closing ": double the quotes inside of a value`)
			p.state = plain
		}
	}
	return false
}

// keep adds a byte to the cell. Of a row that is too long nothing is kept.
func (p *parser) keep(b byte) {
	if p.size <= MaxRow {
		p.buffer = append(p.buffer, b)
	}
}

func (p *parser) refuse(format string, args ...any) {
	if p.row.Problem == "" {
		p.row.Problem = fmt.Sprintf(format, args...)
	}
}

func (p *parser) endCell() {
	if p.size <= MaxRow {
		p.ends = append(p.ends, len(p.buffer))
		p.quoted = append(p.quoted, p.state >= inside)
	}
	p.state = before
}

// end is the record that the file's end ended.
func (p *parser) end() (Row, error) {
	if !p.any {
		return Row{}, io.EOF
	}
	if p.state == inside {
		last := p.line
		if bytes.HasSuffix(p.buffer, []byte("\n")) {
			last--
		}
		p.refuse(
			"its quotes are not closed, and take everything up to line %d with them: close them, and read the file again",
			last,
		)
	}
	p.endCell()
	return p.finish(), nil
}

// finish cuts the buffer into cells.
func (p *parser) finish() Row {
	if strings.HasPrefix(p.row.Problem, "the row is longer") && p.line > p.row.Line+1 {
		p.row.Problem += fmt.Sprintf("; it goes up to line %d: are its quotes closed?", p.line-1)
	}
	p.cells = p.cells[:0]
	from := 0
	for i, to := range p.ends {
		c := cell{p.buffer[from:to], p.quoted[i]}
		if !c.quoted {
			c.text = bytes.TrimSpace(c.text)
		}
		p.cells = append(p.cells, c)
		from = to
	}
	p.row.cells = p.cells
	return p.row
}
