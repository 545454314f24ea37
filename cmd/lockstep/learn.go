package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/rows"
	"lockstep/model"
	"lockstep/worker/fleet"
)

type learnOptions struct {
	connection
	rows  rows.Options
	spec  string
	batch int
	force bool
	json  bool
}

func learnCommand() *cobra.Command {
	var o learnOptions
	cmd := &cobra.Command{
		Use:   "learn FILE",
		Short: "Append a file of learn events to the log",
		Long: `Learn reads a file (- for standard input), checks every row, and appends the good
ones to the log in batches, each acknowledged by JetStream. No worker need run. A
bad row is refused, named, and left out; the rest goes on, and the exit code is 1.

It reads CSV with commas, tabs or semicolons, JSON lines, and a JSON array, also
gzipped. In a CSV file the header names the columns: the spec's inputs and its
label, in any order; other columns are not looked at. An empty field is null, and
so is what --na lists; what stands in quotes is a text. In JSON a row is
{"attributes":{…},LABEL:…}, or has all of it side by side, as a CSV row does.

What is not UTF-8 is refused, or read by --encoding; no byte is repaired.

Every event has an id of its own, made from the file's path, the event, and how
often the same event came before in the file. So a second run of the file, or of
one that grew or was mended, learns only what is new, as long as fewer ids than
the spec's dedup.window (65,536 unless the spec says otherwise) were learned
since. A file with more rows than that is looked up in the log first: where a part
of it is there and could be learned twice, it is refused, unless --force.

A pipe that stays open is stored every second. SIGTERM stores what was read.`,
		Example: `  lockstep learn penguins.csv --na NA
  lockstep learn sales.csv.gz --encoding windows-1252 --decimal , --map Ort=city
  tail -n 1000 events.jsonl | lockstep learn -`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.addModelFlags(cmd)
	addRowsFlags(cmd, &o.rows)
	f := cmd.Flags()
	f.StringVar(
		&o.spec, "spec", "",
		"check events by this spec, for a user who may not read the log: a YAML file, or one of "+
			strings.Join(model.ShippedSpecs(), ", "),
	)
	f.IntVar(&o.batch, "batch", 100, "the most events in a message")
	f.BoolVar(
		&o.force, "force", false,
		"do not look whether a part of the file is in the log: what the model no longer remembers is learned twice",
	)
	f.BoolVar(&o.json, "json", false, "print the counts as JSON")
	return cmd
}

// oneFile is one argument, the file.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%s takes one file at a time, and %d are given: run it for each", cmd.Name(), len(args))
	}
	return cobra.ExactArgs(1)(cmd, args)
}

// addRowsFlags adds what says how a file is read.
func addRowsFlags(cmd *cobra.Command, o *rows.Options) {
	f := cmd.Flags()
	f.StringVar(
		&o.Format, "format", "",
		"csv, jsonl, or json for an array or rows over several lines (by the file's name and first line)",
	)
	f.StringVar(&o.Encoding, "encoding", "", "of the file: "+strings.Join(rows.Encodings, ", "))
	f.StringSliceVar(&o.NA, "na", nil, "texts of a CSV file that mean null, as NA,N/A,null; the empty one does always")
	f.StringVar(&o.Decimal, "decimal", "", "what stands before a CSV file's decimals: . or ,")
	f.StringArrayVar(&o.Map, "map", nil, "column=input, for a column under another name; again for each")
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
	ctx := cmd.Context()
	nc, err := o.connect(ctx, "learn")
	if err != nil {
		return err
	}
	defer nc.Close()
	target, err := o.openTarget(cmd, nc)
	if err != nil {
		return err
	}
	file := &rowsFile{name: name, stdin: cmd.InOrStdin(), spec: target.spec, options: o.rows}
	total, err := o.survey(cmd, file, target)
	var f *openRows
	if err == nil {
		f, err = file.open(ctx)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.New("stopped by a signal; nothing was stored")
	case err != nil:
		return err
	}
	defer f.Close()
	l := &learner{
		target: target, batch: o.batch, errOut: cmd.ErrOrStderr(), names: newNames(name, target.spec),
		total: total,
	}
	bar := progress(cmd, "learning", int64(total), !o.json)
	err = l.run(ctx, f.Reader, func() { bar.Set(l.rows) })
	bar.Finish()
	return l.report(cmd, err, o.json)
}

// target is the log that a file goes to.
type target struct {
	log     *bus.Log
	spec    *model.Spec
	history *history // nil for a user who may not read the log
	most    int      // bytes of a message's data
}

// openTarget binds the log. The spec is the log's own; --spec stands in for it
// where the user may not read the log, and must be the same.
func (o *learnOptions) openTarget(cmd *cobra.Command, nc *bus.Conn) (*target, error) {
	ctx := cmd.Context()
	var own *model.Spec
	name := o.model
	if o.spec != "" {
		s, err := loadSpec(o.spec)
		if err != nil {
			return nil, err
		}
		if cmd.Flags().Changed("model") && o.model != s.Name {
			return nil, usage("--model is %s, and the spec is of the model %s", o.model, s.Name)
		}
		own, name = s, s.Name
	}
	h, err := openHistory(cmd, nc, name)
	var denied *bus.PermissionError
	switch {
	case errors.As(err, &denied) && own == nil:
		return nil, fmt.Errorf("%w; a user who may not read the log gives the model's spec with --spec", err)
	case errors.As(err, &denied):
		return o.unread(cmd, nc, own)
	case err != nil:
		return nil, err
	}
	if own != nil && own.Contract() != h.spec.Contract() {
		return nil, otherContract(own, h.spec.Contract())
	}
	most, err := h.log.MaxBody(ctx)
	if err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	return &target{h.log, h.spec, h, most}, nil
}

func otherContract(s *model.Spec, log [32]byte) error {
	return usage("--spec is another than the log of %s was made with: its contract is %.16x, and the log's %.16x; "+
		"nothing was stored. Leave --spec out, or give the new spec a name, and so a log, of its own", s.Name, s.Contract(), log)
}

// unread is the log for a user who may append to it and not read it. What
// contract it has, the fleet says.
func (o *learnOptions) unread(cmd *cobra.Command, nc *bus.Conn, s *model.Spec) (*target, error) {
	ctx := cmd.Context()
	log, err := bus.UnboundLog(nc, bus.LogConfig{Model: s.Name})
	if err != nil {
		return nil, err
	}
	most, err := log.MaxBody(ctx)
	if err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	var status fleet.Status
	answer, err := bus.Ask(ctx, nc, s.Name+".status", nil, nil)
	if err == nil {
		err = json.Unmarshal(answer.Data, &status)
	}
	contract := s.Contract()
	switch {
	case err != nil:
		fmt.Fprintf(
			cmd.ErrOrStderr(),
			"The log may not be read, and no worker says what contract it has (%v): it is taken to be that of --spec.\n",
			err,
		)
	case status.Contract != fmt.Sprintf("%x", contract):
		var theirs [32]byte
		fmt.Sscanf(status.Contract, "%x", &theirs)
		return nil, otherContract(s, theirs)
	}
	return &target{log, s, nil, most}, nil
}

// rowsFile is a file of rows that can be opened, and if it is no pipe again.
type rowsFile struct {
	name    string
	stdin   io.Reader
	spec    *model.Spec
	options rows.Options

	pipe *openRows // that was opened to find out that it is one
}

// openRows is an opened file of rows.
type openRows struct {
	*rows.Reader
	*rows.File
}

func (f *rowsFile) open(ctx context.Context) (*openRows, error) {
	if f.pipe != nil {
		return f.pipe, nil
	}
	text, err := rows.Open(ctx, f.name, f.stdin, f.options.Encoding)
	if err != nil {
		return nil, f.wrong(err)
	}
	r, err := rows.NewReader(text.Reader, f.name, f.spec, f.options)
	if err != nil {
		text.Close()
		return nil, f.wrong(err)
	}
	opened := &openRows{r, text}
	if !text.Again {
		f.pipe = opened
	}
	return opened, nil
}

// wrong is an error of a file that cannot be read, or not on.
func (f *rowsFile) wrong(err error) error {
	var file *rows.FileError
	var path *fs.PathError
	switch {
	case errors.Is(err, rows.ErrStopped):
		return err
	case errors.As(err, &file) && !errors.As(err, &path): // which names it
		return usage("%s: %w", f.shown(), err)
	}
	return usage("%w", err)
}

// shown is the file's name as it can be printed.
func (f *rowsFile) shown() string {
	if f.name == "-" {
		return "standard input"
	}
	return rows.Show(f.name)
}

// survey reads a file to its end before anything of it is stored: it may be
// broken, or it may be longer than what can be learned a second time. It
// returns how many rows there are, or -1 for a pipe.
func (o *learnOptions) survey(cmd *cobra.Command, file *rowsFile, t *target) (total int, err error) {
	ctx := cmd.Context()
	f, err := file.open(ctx)
	if err != nil || !f.Again {
		return -1, err
	}
	defer f.Close()
	checker := &checker{spec: t.spec, decoder: model.NewDecoder(t.spec)}
	names := newNames(file.name, t.spec)
	var first []byte // the first good row's id
	var last rows.Row
	for {
		row, err := f.Reader.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, fmt.Errorf("%w; nothing was stored", file.wrong(err))
		}
		total++
		if first == nil {
			if event, problems := checker.check(&row); len(problems) == 0 {
				first = names.id(event, total)
			}
		}
		last = rows.Row{Line: row.Line, Data: append(last.Data[:0], row.Data...), Problem: row.Problem}
	}
	if total <= t.spec.DedupWindow || o.force || first == nil {
		return total, nil
	}
	ids := [][]byte{first}
	if event, problems := checker.check(&last); len(problems) == 0 {
		ids = append(ids, names.id(event, total))
	}
	return total, o.lookUp(cmd, file.name, total, ids, t)
}

// lookUp refuses a file of which the log has a part, and which is too long to
// be learned only once.
func (o *learnOptions) lookUp(cmd *cobra.Command, name string, total int, ids [][]byte, t *target) error {
	window := t.spec.DedupWindow
	long := fmt.Sprintf(
		"%s has %d rows, and the model remembers the last %d ids (dedup.window)", rows.Show(name), total, window,
	)
	if t.history == nil {
		return usage("%s. Whether a part of it is in the log, this user may not look, and it would be learned twice: "+
			"nothing was stored; --force learns it all the same", long)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: looking whether a part of it is in the log already.\n", long)
	found, err := t.history.find(cmd, ids, !o.json)
	if err != nil {
		return err
	}
	if t.history.first > 1 {
		fmt.Fprintf(
			cmd.ErrOrStderr(), "The log begins at sequence %d: what came before was cut, and is not looked at.\n",
			t.history.first,
		)
	}
	switch first := found[0]; {
	case first.seq > 0 && first.since > window:
		return usage(
			"%s. Its first row is in the log already, at sequence %d, and %d events came since, so that rows would be "+
				"learned twice: "+
				"nothing was stored. Put the rows that are new into a file of their own, or learn all again with --force",
			long, first.seq, first.since,
		)
	case first.seq == 0 && len(found) > 1 && found[1].seq > 0:
		return usage(
			"%s. Its last row is in the log already, at sequence %d, and its first is not, so that rows may be learned twice: "+
				"nothing was stored. Put the rows that are new into a file of their own, or learn all again with --force",
			long, found[1].seq,
		)
	}
	return nil // it is new, or its ids are remembered from the first row on
}
