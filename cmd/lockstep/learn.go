package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/model"
)

type learnOptions struct {
	connection
	format string
	spec   string
	batch  int
	json   bool
}

func learnCommand() *cobra.Command {
	var o learnOptions
	cmd := &cobra.Command{
		Use:   "learn FILE",
		Short: "Append a file of learn events to the log",
		Long: `Learn reads a CSV file or JSON lines (- for standard input), checks every event,
and appends the good ones to the log in batches, each acknowledged by JetStream.
A bad line is refused, named, and left out; the rest goes on, and the exit code
is 1.

In a CSV file the header names the columns: the spec's inputs and its label, in
any order, between commas, tabs or semicolons; other columns are passed over, and
an empty field or NA is null.

Every event has an id of its own, made from the file's name, the event, and how
often the same event came before in the file. So a second run of the file, or of
one that grew or was mended, learns only what is new, as long as fewer ids than
the spec's dedup.window were learned since. What JetStream has forgotten (after
two minutes) is stored again then, and passed over by the fold.`,
		Example: `  lockstep learn penguins.csv
  tail -n 1000 events.jsonl | lockstep learn - --format jsonl`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.addModelFlags(cmd)
	cmd.Flags().StringVar(&o.spec, "spec", "", "check events by this spec, and do not read the log for it: a YAML file, or one of "+strings.Join(model.ShippedSpecs(), ", "))
	cmd.Flags().StringVar(&o.format, "format", "", "csv or jsonl (by the file's ending: csv, tsv; else jsonl)")
	cmd.Flags().IntVar(&o.batch, "batch", 100, "events in a message")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the counts as JSON")
	return cmd
}

// learnCounts is what became of a file's events.
type learnCounts struct {
	Stored  int `json:"stored"`  // acknowledged by JetStream
	Refused int `json:"refused"` // bad: left out
	Already int `json:"already"` // acknowledged as duplicates
}

func (o *learnOptions) run(cmd *cobra.Command, name string) error {
	if o.batch < 1 || o.batch > model.MaxBatch {
		return usage("--batch is %d, and must be from 1 to %d", o.batch, model.MaxBatch)
	}
	f, err := input(cmd, name)
	if err != nil {
		return err
	}
	defer f.Close()
	nc, err := o.connect(cmd.Context(), "learn")
	if err != nil {
		return err
	}
	defer nc.Close()
	log, s, err := o.openLog(cmd.Context(), nc)
	if err != nil {
		return err
	}
	next, err := o.events(s, name, f)
	if err != nil {
		return err
	}
	l := &learner{spec: s, log: log, subject: s.Name + "." + model.SubjectLearn, batch: o.batch, errOut: cmd.ErrOrStderr(), name: filepath.Base(name), seen: map[[16]byte]uint64{}}
	bar := progress(cmd, "learning", -1, !o.json)
	err = l.run(cmd.Context(), next, func() { bar.Set(l.total) })
	bar.Finish()
	if err != nil {
		return fmt.Errorf("%w; %d events are stored: run the same command again, and it goes on from there", err, l.counts.Stored)
	}
	return l.report(cmd, o.json)
}

// openLog binds the log, which has its spec. With --spec it only appends.
func (o *learnOptions) openLog(ctx context.Context, nc *bus.Conn) (*bus.Log, *model.Spec, error) {
	if o.spec == "" {
		h, err := openHistory(ctx, nc, o.model)
		var denied *bus.PermissionError
		if errors.As(err, &denied) {
			err = fmt.Errorf("%w; who may not read the log gives the model's spec with --spec", err)
		}
		if err != nil {
			return nil, nil, err
		}
		return h.log, h.spec, nil
	}
	s, err := loadSpec(o.spec)
	if err != nil {
		return nil, nil, err
	}
	log, err := bus.UnboundLog(nc, bus.LogConfig{Model: s.Name})
	return log, s, err
}

// events picks the reader of a file's format.
func (o *learnOptions) events(s *model.Spec, name string, f io.Reader) (func() (event, error), error) {
	format := o.format
	if format == "" {
		format = "jsonl"
		switch strings.ToLower(filepath.Ext(name)) {
		case ".csv", ".tsv":
			format = "csv"
		}
	}
	switch format {
	case "csv":
		return csvEvents(s, f)
	case "jsonl":
		return jsonEvents(f), nil
	}
	return nil, usage("--format %s: it is csv or jsonl", format)
}

// event is a learn event of a file, not checked yet.
type event struct {
	line    int
	data    []byte
	problem string // why the line is no event at all; the rest goes on
}

func jsonEvents(f io.Reader) func() (event, error) {
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, maxLine)
	line := 0
	return func() (event, error) {
		for scanner.Scan() {
			line++
			if data := bytes.TrimSpace(scanner.Bytes()); len(data) > 0 {
				return event{line: line, data: data}, nil
			}
		}
		if err := scanner.Err(); err != nil {
			return event{}, lineError(line+1, err)
		}
		return event{}, io.EOF
	}
}

func csvEvents(s *model.Spec, f io.Reader) (func() (event, error), error) {
	buffered := bufio.NewReaderSize(f, 64<<10)
	r := csv.NewReader(buffered)
	r.Comma = delimiter(buffered)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, usage("the CSV file has no header: %w", err)
	}
	columns := map[string]int{}
	for i, name := range header {
		name = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
		if _, twice := columns[name]; twice {
			return nil, usage("the CSV header has the column %s twice", name)
		}
		columns[name] = i
	}
	var missing []string
	for _, f := range append(append([]model.Field(nil), s.Inputs...), s.Label) {
		if _, ok := columns[f.Name]; !ok {
			missing = append(missing, f.Name)
		}
	}
	if len(missing) > 0 {
		return nil, usage("the CSV header has no column %s; it has: %s", strings.Join(missing, ", "), strings.Join(header, ", "))
	}
	return func() (event, error) {
		record, err := r.Read()
		var bad *csv.ParseError
		switch {
		case errors.As(err, &bad):
			problem := bad.Err.Error()
			if bad.Line > bad.StartLine {
				problem += fmt.Sprintf("; the quotes take everything up to line %d with them: mend them, and run the command again", bad.Line)
			}
			return event{line: bad.StartLine, problem: problem}, nil
		case err != nil:
			return event{}, err
		}
		line, _ := r.FieldPos(0)
		attributes := map[string]any{}
		for _, f := range s.Inputs {
			attributes[f.Name] = csvValue(f, record[columns[f.Name]])
		}
		data, err := json.Marshal(map[string]any{"attributes": attributes, s.Label.Name: csvValue(s.Label, record[columns[s.Label.Name]])})
		return event{line: line, data: data}, err
	}, nil
}

// delimiter is what the first line has most of: a comma, a tab or a semicolon.
func delimiter(f *bufio.Reader) rune {
	head, _ := f.Peek(f.Size()) // shorter at the file's end
	line, _, _ := bytes.Cut(head, []byte("\n"))
	best := ','
	for _, other := range "\t;" {
		if bytes.Count(line, []byte(string(other))) > bytes.Count(line, []byte(string(best))) {
			best = other
		}
	}
	return best
}

// csvValue is a CSV field as JSON. A number that is none stays a text, for
// the check to refuse.
func csvValue(f model.Field, text string) any {
	if text == "" || text == "NA" {
		return nil
	}
	if f.Type == model.Number {
		if v, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil {
			if data, err := json.Marshal(v); err == nil {
				return json.RawMessage(data)
			}
		}
	}
	return text
}

// learner appends events in batches.
type learner struct {
	spec    *model.Spec
	log     *bus.Log
	subject string
	batch   int
	errOut  io.Writer

	name   string              // the file's
	seen   map[[16]byte]uint64 // how often an event has come
	total  int
	counts learnCounts
}

// maxNamed is how many bad lines are named one by one.
const maxNamed = 20

func (l *learner) run(ctx context.Context, next func() (event, error), step func()) error {
	decoder := model.NewDecoder(l.spec)
	publisher := l.log.Publisher(ctx, l.subject, func(events int, ack bus.Ack) {
		if ack.Duplicate {
			l.counts.Already += events
		} else {
			l.counts.Stored += events
		}
	})
	var body []byte
	size := 0
	flush := func() error {
		if size == 0 {
			return nil
		}
		sum := sha256.Sum256(body) // the events' own ids are part of it
		err := publisher.Publish("learn-"+hex.EncodeToString(sum[:16]), append(body, ']'), size)
		body, size = nil, 0
		return err
	}
	for {
		e, err := next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return errors.Join(err, publisher.Close())
		}
		element, problems := l.element(decoder, e)
		l.total++
		step()
		if len(problems) > 0 {
			l.refuse(e, problems)
			continue
		}
		body = append(append(body, "[,"[min(size, 1)]), element...)
		if size++; size == l.batch {
			if err := flush(); err != nil {
				return errors.Join(err, publisher.Close())
			}
		}
	}
	return errors.Join(flush(), publisher.Close())
}

// element checks an event and writes it with an id of its own.
func (l *learner) element(decoder *model.Decoder, e event) ([]byte, []model.Problem) {
	if e.problem != "" {
		return nil, []model.Problem{{Loc: []any{}, Msg: e.problem, Type: "line"}}
	}
	events, batch, err := decoder.Learn(e.data)
	var invalid *model.InvalidError
	switch {
	case errors.As(err, &invalid):
		return nil, invalid.Problems
	case err != nil || batch:
		return nil, []model.Problem{{Loc: []any{}, Msg: "A line holds one event, not an array", Type: "event_type"}}
	case len(events[0].Problems) > 0:
		return nil, events[0].Problems
	}
	id := events[0].ID
	if id == nil {
		id = l.id(model.AppendLearn(nil, l.spec, events[0].Row, events[0].Label, nil))
	}
	return model.AppendLearn(nil, l.spec, events[0].Row, events[0].Label, id), nil
}

// id names an event of the file.
func (l *learner) id(event []byte) []byte {
	sum := sha256.Sum256(event)
	key := [16]byte(sum[:16])
	l.seen[key]++
	sum = sha256.Sum256(fmt.Appendf(nil, "%s\n%x\n%d", l.name, sum, l.seen[key]))
	return []byte(hex.EncodeToString(sum[:12]))
}

func (l *learner) refuse(e event, problems []model.Problem) {
	l.counts.Refused++
	if l.counts.Refused <= maxNamed {
		fmt.Fprintf(l.errOut, "line %d is refused:\n", e.line)
		printProblems(l.errOut, problems)
	} else if l.counts.Refused == maxNamed+1 {
		fmt.Fprintln(l.errOut, "more lines are refused; they are counted below")
	}
}

func (l *learner) report(cmd *cobra.Command, asJSON bool) error {
	if good := l.total - l.counts.Refused; good > l.spec.DedupWindow {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: the file has %d good events, and the spec's dedup.window is %d: a second run would learn the earlier ones twice\n", good, l.spec.DedupWindow)
	}
	if asJSON {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(l.counts); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(cmd.OutOrStdout(), "%d stored, %d refused, %d already there\n", l.counts.Stored, l.counts.Refused, l.counts.Already)
	}
	if l.counts.Refused > 0 {
		return fmt.Errorf("%d events were refused", l.counts.Refused)
	}
	return nil
}
