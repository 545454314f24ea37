// Package rows reads the files that people have: CSV with commas, tabs or
// semicolons, JSON lines, JSON arrays, plain or gzipped, in UTF-8 or what they
// say it is. Each row comes out as one learn event in JSON.
//
// No byte is repaired on the way. A row that cannot be read as it stands is
// returned with its problem, and the rows after it go on. Memory is bounded by
// one row, however long the file is, and a row is returned as soon as its
// bytes are there, so that a pipe that stays open is read as it is written.
package rows

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"lockstep/model"
)

// MaxRow is the most bytes of one row.
const MaxRow = 4 << 20

// Options say how a file is to be read. Their zero value reads UTF-8 in
// whatever format the file's name and its first line show.
type Options struct {
	Format   string   // csv, jsonl or json; empty: by name and content
	Encoding string   // one of Encodings; empty: utf-8
	NA       []string // texts that mean null, beside the empty one; CSV only
	Decimal  string   // "." or ","; empty is "."; CSV only
	Map      []string // column=input, for columns under another name
	// Batches: an array of events on a line of JSON is one row. Otherwise each
	// of its elements is.
	Batches bool
}

// OptionError says that an option, or what the file has for it, is wrong.
type OptionError struct{ Text string }

func (e *OptionError) Error() string { return e.Text }

func optionError(format string, args ...any) error {
	return &OptionError{fmt.Sprintf(format, args...)}
}

// FileError says that a file cannot be read on from a line.
type FileError struct {
	Line int // 0: the file as a whole
	Err  error
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("line %d: %v", e.Line, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// Row is one row of a file. It is valid until the next one is read.
type Row struct {
	Line int    // where it begins
	Data []byte // the event, as JSON; nil if the row has a problem
	// Problem says why the row is no event at all. It holds no control
	// character.
	Problem string

	cells []cell // of a CSV file
	table *table // nil where the row came as JSON
}

// Reader reads a file's rows as events of a spec.
type Reader struct {
	next func() (Row, error)
}

// Next returns the next row, or io.EOF after the last one. Any other error
// ends the file: the rows before it stand, those after it cannot be read.
func (r *Reader) Next() (Row, error) { return r.next() }

// NewReader reads the rows of a text, which Open or NewText made. The name
// decides the format where the options do not: .csv and .tsv are tables, .json
// and .jsonl are JSON, with or without .gz after it.
func NewReader(text *bufio.Reader, name string, s *model.Spec, o Options) (*Reader, error) {
	names, err := mapping(s, o.Map)
	if err != nil {
		return nil, err
	}
	format, err := o.format(name, text)
	if err != nil {
		return nil, err
	}
	if format != "csv" && (len(o.NA) > 0 || o.Decimal != "") {
		return nil, optionError(
			"--na and --decimal are for CSV files, and this one is JSON: there null is null, and a number has a point",
		)
	}
	if o.Decimal != "" && o.Decimal != "." && o.Decimal != "," {
		return nil, optionError("--decimal %s: it is . or ,", Show(o.Decimal))
	}
	switch format {
	case "csv":
		t, err := newTable(text, s, names, o)
		if err != nil {
			return nil, err
		}
		return &Reader{t.row}, nil
	case "json":
		return &Reader{newDocument(text, s, names).row}, nil
	}
	return &Reader{newLines(text, s, names).row}, nil
}

// format is csv, jsonl or json. A file's name says whether it is a table or
// JSON, where it says anything; whether JSON is lines or one document, only
// its beginning says.
func (o Options) format(name string, text *bufio.Reader) (string, error) {
	switch o.Format {
	case "csv", "jsonl", "json":
		return o.Format, nil
	case "":
	default:
		return "", optionError(
			"--format %s: it is csv or jsonl, or json for an array of rows or for rows over several lines",
			Show(o.Format),
		)
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".gz")
	first := firstLine(text)
	switch extension := filepath.Ext(name); {
	case extension == ".csv", extension == ".tsv":
		return "csv", nil
	case extension == ".jsonl", extension == ".ndjson", extension == ".json", looksLikeJSON(first):
		if isDocument(first, o.Batches && extension != ".json") {
			return "json", nil
		}
		return "jsonl", nil
	}
	return "csv", nil
}

func looksLikeJSON(line []byte) bool { return len(line) > 0 && (line[0] == '{' || line[0] == '[') }

// firstLine is the first line that is not blank, as far as it fits into the
// reader's buffer, without the space around it. It waits for no more than it
// needs.
func firstLine(text *bufio.Reader) []byte {
	var line []byte
	head(text, func(data []byte) bool {
		data = trimLeft(data)
		end := slices.Index(data, '\n')
		if end < 0 {
			line = data
			return false
		}
		line = data[:end]
		return true
	})
	return []byte(strings.TrimSpace(string(line)))
}

// head looks at what a reader holds until enough says so, the buffer is full,
// or the text ends. Each turn reads once, so that an open pipe is not waited
// for longer than need be.
func head(r *bufio.Reader, enough func([]byte) bool) {
	for n := 1; ; n = r.Buffered() + 1 {
		_, err := r.Peek(n)
		data, _ := r.Peek(r.Buffered())
		if enough(data) || err != nil {
			return
		}
	}
}

func trimLeft(data []byte) []byte {
	for len(data) > 0 && strings.IndexByte(" \t\r\n", data[0]) >= 0 {
		data = data[1:]
	}
	return data
}

// mapping is the columns' other names: the input, or the label, that each
// stands for.
func mapping(s *model.Spec, pairs []string) (map[string]string, error) {
	names, taken := map[string]string{}, map[string]bool{}
	for _, pair := range pairs {
		column, name, ok := strings.Cut(pair, "=")
		if at := strings.LastIndexByte(pair, '='); ok {
			column, name = pair[:at], pair[at+1:]
		}
		column, name = strings.TrimSpace(column), strings.TrimSpace(name)
		switch {
		case !ok || column == "" || name == "":
			return nil, optionError("--map %s: it is column=input", Show(pair))
		case !slices.Contains(used(s), name):
			return nil, optionError(
				"--map %s: the spec %s has no input and no label %s; it has: %s", Show(pair), s.Name, Show(name),
				strings.Join(used(s), ", "),
			)
		case taken[name]:
			return nil, optionError("--map gives %s twice", Show(name))
		case names[column] != "":
			return nil, optionError("--map gives the column %s twice", Show(column))
		}
		names[column], taken[name] = name, true
	}
	return names, nil
}

// used is the names that a row must have.
func used(s *model.Spec) []string {
	var names []string
	for _, f := range s.Inputs {
		names = append(names, f.Name)
	}
	return append(names, s.Label.Name)
}

// maxShown is how many bytes of a stranger's text are shown.
const maxShown = 80

// Show is a text from outside as it can be printed: quoted and escaped unless
// it is plain, and cut if it is long.
func Show(text string) string {
	quoted := quote(text)
	if plain := quoted[1 : len(quoted)-1]; plain == text && text != "" && !strings.ContainsFunc(text, unicode.IsSpace) {
		return text
	}
	return quoted
}

// quote is a text from outside in quotes, with everything escaped that a
// terminal would not print, and cut if it is long.
func quote(text string) string {
	if len(text) <= maxShown {
		return fmt.Sprintf("%q", text)
	}
	cut := maxShown
	for cut > maxShown-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return fmt.Sprintf("%q…", text[:cut])
}

// ended reports whether an error is that of a text's end.
func ended(err error) bool { return errors.Is(err, io.EOF) }
