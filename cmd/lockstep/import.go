package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/cmd/lockstep/internal/rows"
	"lockstep/model"
)

// checker checks rows, and writes the good ones as events.
type checker struct {
	spec    *model.Spec
	decoder *model.Decoder
}

// check returns the row as the log has it, or what is wrong with it.
func (c *checker) check(row *rows.Row) (model.Event, []model.Problem) {
	if row.Problem != "" {
		return model.Event{}, []model.Problem{{Loc: []any{}, Msg: row.Problem, Type: "line"}}
	}
	events, batch, err := c.decoder.Learn(row.Data)
	var invalid *model.InvalidError
	switch {
	case errors.As(err, &invalid):
		return model.Event{}, invalid.Problems
	case err != nil || batch:
		return model.Event{}, []model.Problem{{Loc: []any{}, Msg: "A row is one event, not an array", Type: "event_type"}}
	}
	return events[0], events[0].Problems
}

// names gives each event of a file its id: the same at each run, as long as
// the file has the same rows before it.
type names struct {
	spec *model.Spec
	file string
	seen map[[16]byte]uint32 // how often an event has come
}

// newNames names a file by its path, with links resolved: folders of a day
// each have files of one name, and rows in them that look alike.
func newNames(file string, s *model.Spec) *names {
	if file != "-" {
		if whole, err := filepath.Abs(file); err == nil {
			file = whole
		}
		if whole, err := filepath.EvalSymlinks(file); err == nil {
			file = whole
		}
	}
	return &names{spec: s, file: file, seen: map[[16]byte]uint32{}}
}

// id is the event's own id, or one made of what it says and how often that
// came before. It counts as many rows as the model remembers ids, so that its
// memory is bounded; past them an id is made of what the event says and where.
func (n *names) id(e model.Event, row int) []byte {
	if e.ID != nil {
		return e.ID
	}
	sum := sha256.Sum256(model.AppendLearn(nil, n.spec, e.Row, e.Label, nil))
	text := fmt.Appendf(nil, "%s\n%x\nrow %d", n.file, sum, row)
	if row <= n.spec.DedupWindow {
		key := [16]byte(sum[:16])
		n.seen[key]++
		text = fmt.Appendf(nil, "%s\n%x\n%d", n.file, sum, n.seen[key])
	}
	sum = sha256.Sum256(text)
	return []byte(hex.EncodeToString(sum[:12]))
}

// learner appends a file's rows in batches.
type learner struct {
	*target
	batch  int // the most events
	errOut io.Writer
	names  *names
	total  int // rows, -1 if no one knows
	rows   int // that were read

	tally tally
}

// item is a row that was read: an event, or why it is refused.
type item struct {
	line    int
	element []byte
	refused string
}

const (
	// maxNamed is how many bad rows are named one by one.
	maxNamed = 20
	// batchTime is how long an event waits for others to fill its batch.
	batchTime = time.Second
	// lastAcks is how long acknowledgements are waited for after a signal.
	lastAcks = 10 * time.Second
)

// run stores all rows. Once ctx ends, what was read is still stored, and the
// error is rows.ErrStopped.
func (l *learner) run(ctx context.Context, r *rows.Reader, step func()) error {
	publishing, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastAcks, giveUp) })()
	reading, stop := context.WithCancel(ctx)
	defer stop()

	items, read := make(chan item, 64), make(chan error, 1)
	go func() {
		read <- l.read(reading, r, items)
		close(items)
	}()
	err := l.send(publishing, items, step)
	stop()
	for range items { // its reader goes on until it sees the end
	}
	if err != nil {
		return err
	}
	return <-read
}

// read checks rows until their end, or ctx's.
func (l *learner) read(ctx context.Context, r *rows.Reader, items chan<- item) error {
	c := &checker{spec: l.spec, decoder: model.NewDecoder(l.spec)}
	for n := 1; ; n++ {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		one := item{line: row.Line}
		if event, problems := c.check(&row); len(problems) > 0 {
			one.refused = refusal(&row, l.spec, problems)
		} else {
			one.element = model.AppendLearn(nil, l.spec, event.Row, event.Label, l.names.id(event, n))
		}
		if most := l.most - len("[]"); len(one.element) > most {
			one.refused = fmt.Sprintf("  the event has %d bytes, and the log takes at most %d\n", len(one.element), most)
		}
		items <- one
		if ctx.Err() != nil && l.total >= 0 {
			return rows.ErrStopped // a pipe says so itself, behind what was taken from it
		}
	}
}

// refusal is what is wrong with a row, a line for each place, with its value.
func refusal(row *rows.Row, s *model.Spec, problems []model.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "  %s", printable.Text(p.String()))
		name := ""
		if len(p.Loc) > 0 {
			name = fmt.Sprint(p.Loc[len(p.Loc)-1])
		}
		switch column, value := row.Value(s, p.Loc); {
		case p.Type == "missing" && name == "attributes":
			fmt.Fprintf(&b, `: a row is {"attributes":{…},%q:…}, or has both side by side`, s.Label.Name)
		case value == "":
		case column == name:
			fmt.Fprintf(&b, ": %s", value)
		default:
			fmt.Fprintf(&b, ": %s (column %s)", value, column)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// send gathers events into batches, and publishes each when it is full, or
// has waited long enough.
func (l *learner) send(ctx context.Context, items <-chan item, step func()) error {
	publisher := l.log.Publisher(ctx, l.spec.Name+"."+model.SubjectLearn, l.tally.outcome)
	due := time.NewTimer(batchTime)
	defer due.Stop()
	var b batch
	flush := func() error {
		if b.events == 0 {
			return nil
		}
		full := b
		b = batch{}
		return publisher.Publish(full.id(), append(full.body, ']'), l.tally.sent(full.span))
	}
	for {
		var err error
		select {
		case one, open := <-items:
			if !open {
				return l.close(publisher, flush())
			}
			l.rows++
			step()
			if one.refused != "" {
				l.refuse(one)
				continue
			}
			if len(b.body)+len(one.element)+len(",]") > l.most {
				err = flush()
			}
			if b.events == 0 {
				due.Reset(batchTime)
			}
			if b.add(one); b.events == l.batch && err == nil {
				err = flush()
			}
		case <-due.C:
			err = flush()
		}
		if err != nil {
			l.tally.sent(b.span)
			return l.close(publisher, err)
		}
	}
}

// close waits until everything has its outcome, and returns the first error.
func (l *learner) close(publisher *bus.Publisher, err error) error {
	if last := publisher.Close(); err == nil {
		err = last
	}
	l.tally.closed()
	return err
}

// batch is a message that is being written.
type batch struct {
	span
	body []byte
}

func (b *batch) add(one item) {
	if b.events == 0 {
		b.from = one.line
	}
	b.body = append(append(b.body, "[,"[min(b.events, 1)]), one.element...)
	b.to = one.line
	b.events++
}

// id names the message: its events' own ids are part of it.
func (b *batch) id() string {
	sum := sha256.Sum256(b.body)
	return "learn-" + hex.EncodeToString(sum[:16])
}

func (l *learner) refuse(one item) {
	l.tally.counts.Refused++
	if n := l.tally.counts.Refused; n <= maxNamed {
		fmt.Fprintf(l.errOut, "line %d is refused:\n%s", one.line, one.refused)
	} else if n == maxNamed+1 {
		fmt.Fprintln(l.errOut, "more lines are refused; they are counted below")
	}
}

// span is the events of one message, or of several that follow each other.
type span struct {
	events   int
	from, to int // lines
	tag      int // of the last message
}

func (s span) String() string {
	if s.from == s.to {
		return fmt.Sprintf("line %d", s.from)
	}
	return fmt.Sprintf("lines %d to %d", s.from, s.to)
}

// spans is what met with one fate.
type spans []span

// add joins a message to the last one, if that came just before it.
func (all *spans) add(s span) {
	if n := len(*all); n > 0 && (*all)[n-1].tag == s.tag-1 {
		last := &(*all)[n-1]
		last.events, last.to, last.tag = last.events+s.events, s.to, s.tag
	} else if s.events > 0 {
		*all = append(*all, s)
	}
}

func (all spans) events() (n int) {
	for _, s := range all {
		n += s.events
	}
	return n
}

func (all spans) String() string {
	var each []string
	for _, s := range all {
		each = append(each, s.String())
	}
	return strings.Join(each, ", ")
}

// tally is what became of what was read.
type tally struct {
	mu       sync.Mutex
	counts   learnCounts  // guarded by mu, as all below
	inFlight map[int]span // by tag
	tags     int
	stored   spans
	lost     spans // not stored
	unsure   spans // perhaps stored
	sentTo   int   // the last line that was sent
}

// sent is a message on its way; it returns the message's tag.
func (t *tally) sent(s span) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inFlight == nil {
		t.inFlight = map[int]span{}
	}
	t.tags++
	s.tag, t.sentTo = t.tags, s.to
	t.inFlight[s.tag] = s
	return s.tag
}

// outcome is what became of a message. They come in the order of their tags.
func (t *tally) outcome(tag int, ack bus.Ack, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.inFlight[tag]
	delete(t.inFlight, tag)
	switch {
	case errors.Is(err, bus.ErrUnacknowledged):
		t.unsure.add(s)
		return
	case err != nil:
		t.lost.add(s)
		return
	}
	t.stored.add(s)
	if ack.Duplicate {
		t.counts.Already += s.events
	} else {
		t.counts.Stored += s.events
	}
}

// closed counts what was gathered, and has no outcome, as not stored.
func (t *tally) closed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tag := range slices.Sorted(maps.Keys(t.inFlight)) {
		t.lost.add(t.inFlight[tag])
	}
}

// report prints the counts. After a failure the error says what is stored and
// what is not.
func (l *learner) report(cmd *cobra.Command, err error, asJSON bool) error {
	counts := l.tally.counts
	if err != nil {
		err = l.failure(err)
	} else if good := l.rows - counts.Refused; l.total < 0 && good > l.spec.DedupWindow {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %d events came, and the model remembers the last %d ids (dedup.window): "+
			"a second run would learn the earlier ones twice\n", good, l.spec.DedupWindow)
	}
	if asJSON {
		out := struct {
			learnCounts
			Error *failed `json:"error,omitempty"`
		}{counts, failureOf(err)}
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(out); err != nil {
			return err
		}
	} else if err == nil || l.rows > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "%d stored, %d refused, %d already there\n", counts.Stored, counts.Refused, counts.Already)
	}
	if err == nil && counts.Refused > 0 {
		return fmt.Errorf("%d events were refused", counts.Refused)
	}
	return err
}

// failure says of an import that ended early what is stored and what is not,
// and how to go on.
func (l *learner) failure(err error) error {
	t := &l.tally
	if errors.Is(err, rows.ErrStopped) {
		err = errors.New("stopped by a signal")
	}
	said := []string{"nothing is stored"}
	if len(t.stored) > 0 {
		said[0] = fmt.Sprintf("%d events are stored (%s)", t.stored.events(), t.stored)
	}
	if len(t.lost) > 0 {
		said = append(said, fmt.Sprintf("%d events are not (%s)", t.lost.events(), t.lost))
	}
	if len(t.unsure) > 0 {
		said = append(
			said,
			fmt.Sprintf("of %d events no acknowledgement came, and they may be stored (%s)", t.unsure.events(), t.unsure),
		)
	}
	said = append(said, fmt.Sprintf("nothing after line %d was sent", max(t.sentTo, 1)))
	switch {
	case l.total < 0:
	case l.total <= l.spec.DedupWindow:
		said = append(
			said,
			fmt.Sprintf(
				"run the same command again: what is stored is not learned twice, if fewer than %d events (dedup.window) are "+
					"learned in all until then",
				l.spec.DedupWindow,
			),
		)
	default:
		said = append(
			said,
			"run the same command again: it looks up what is stored, and either goes on from there or says why it cannot",
		)
	}
	return fmt.Errorf("%w; %s", err, strings.Join(said, "; "))
}
