package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/rows"
	"lockstep/model"
	"lockstep/worker/replica"
)

type replayOptions struct {
	connection
	rows rows.Options
	file string
	spec string
	to   uint64
	each bool
	json bool
}

func replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Fold the log, or a file without any server, and print the state it gives",
		Long: `Replay folds a log into a fresh model and prints the state: the same that every
worker has at that sequence.

With --file it needs no server. The file is one that lockstep learn reads, or a
trace in JSON lines: there an event whose label is null is a prediction only (its
verdict is "predicted"), "reset": true starts afresh, and a line with
"final": true is compared with the state; a difference is an error.`,
		Example: `  lockstep replay                              # the log of the server on this machine
  lockstep replay --to 100 --json              # as it was at sequence 100
  lockstep replay --file events.jsonl --each   # a verdict and a prediction per event
  lockstep replay --file penguins.csv --na NA`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.file != "" {
				return o.replayFile(cmd)
			}
			if cmd.Flags().Changed("spec") {
				return usage("--spec goes with --file: a log is folded with the spec that it was made with")
			}
			return o.replayLog(cmd)
		},
	}
	o.addModelFlags(cmd)
	addSpecFlag(cmd, &o.spec)
	addRowsFlags(cmd, &o.rows)
	cmd.Flags().StringVar(&o.file, "file", "", "replay this file instead of a log; - is standard input")
	cmd.Flags().Uint64Var(&o.to, "to", 0, "stop after this sequence (0: all of it)")
	cmd.Flags().BoolVar(&o.each, "each", false, "print JSON lines only: one per event, and a last one with the state")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the state as JSON")
	return cmd
}

// replay folds events into a model and prints what it is asked to.
type replay struct {
	model   *model.Model
	decoder *model.Decoder
	each    *json.Encoder // nil without --each
	seq     uint64        // of the last event of a file

	rejected string // why the first event was that was
}

func (o *replayOptions) newReplay(cmd *cobra.Command, s *model.Spec) (*replay, error) {
	m, err := model.New(s)
	if err != nil {
		return nil, usage("%w", err)
	}
	r := &replay{model: m, decoder: model.NewDecoder(s)}
	if o.each {
		r.each = json.NewEncoder(cmd.OutOrStdout())
		r.each.SetEscapeHTML(false)
	}
	return r, nil
}

// replayed is a line of --each.
type replayed struct {
	Seq     uint64             `json:"seq"`
	Index   *int               `json:"index,omitempty"` // in a batch
	Verdict string             `json:"verdict"`
	Predict *model.Target      `json:"predict"`
	Proba   map[string]float64 `json:"proba"`
	Detail  []model.Problem    `json:"detail,omitempty"` // why it was rejected
}

func (r *replay) print(line replayed) error {
	if r.each == nil {
		return nil
	}
	if line.Proba == nil {
		line.Proba = map[string]float64{}
	}
	return r.each.Encode(line)
}

// apply folds one message and prints a line for each of its events.
func (r *replay) apply(msg model.Message) error {
	result := r.model.Apply(msg)
	for i, o := range result.Outcomes {
		line := replayed{Seq: msg.Seq, Verdict: o.Verdict.String(), Detail: o.Problems}
		if result.Batch {
			line.Index = &i
		}
		if len(o.Problems) > 0 && r.rejected == "" {
			r.rejected = o.Problems[0].String()
		}
		if o.Answer.Known {
			line.Predict = &o.Answer.Predicted
		}
		if o.Proba != nil {
			line.Proba = r.byLabel(o.Proba)
		}
		if err := r.print(line); err != nil {
			return err
		}
	}
	return nil
}

func (r *replay) byLabel(proba []float64) map[string]float64 {
	out := make(map[string]float64, len(proba))
	for class, p := range proba {
		out[r.model.Labels()[class]] = p
	}
	return out
}

// finish prints the state.
func (r *replay) finish(cmd *cobra.Command, asJSON bool) error {
	m, scores := r.model, r.model.Metrics()
	digest, log, state := m.Digest(), m.LogChain(), m.StateChain()
	if !asJSON && r.each == nil {
		quality := fmt.Sprintf(
			"accuracy     %.4f (%d of %d)\nlog-loss     %.4f", scores.Accuracy(), scores.Correct(),
			scores.Scored(), scores.LogLoss(),
		)
		if scores.Kind() == model.Number {
			quality = fmt.Sprintf(
				"MAE          %.6g (%d events)\nRMSE         %.6g\nR2           %.4f", scores.MAE(),
				scores.Scored(), scores.RMSE(), scores.R2(),
			)
		}
		_, err := fmt.Fprintf(
			cmd.OutOrStdout(),
			"sequence     %d\nlearned      %d\nrejected     %d\nduplicates   %d\n%s\nlog chain    %x\nstate chain  "+
				"%x\ndigest       %x (%s)\n",
			m.Seq(), m.Learned(), m.Rejected(), m.Duplicates(), quality, log, state, digest, model.Encoding,
		)
		return err
	}
	line := m.Counts()
	line["final"] = true
	line["seq"], line["rejected"], line["duplicates"] = m.Seq(), m.Rejected(), m.Duplicates()
	if scores.Kind() == model.Number {
		line["mae"], line["rmse"], line["r2"] = scores.MAE(), scores.RMSE(), scores.R2()
	} else {
		line["accuracy"], line["log_loss"] = scores.Accuracy(), scores.LogLoss()
	}
	line["log_chain"], line["state_chain"] = hex.EncodeToString(log[:]), hex.EncodeToString(state[:])
	line["digest"], line["encoding"] = hex.EncodeToString(digest[:]), model.Encoding
	return json.NewEncoder(cmd.OutOrStdout()).Encode(line)
}

// replayLog folds the log of a server.
func (o *replayOptions) replayLog(cmd *cobra.Command) error {
	ctx := cmd.Context()
	nc, err := o.connect(ctx, "replay")
	if err != nil {
		return err
	}
	defer nc.Close()
	h, err := openHistory(cmd, nc, o.model)
	if err != nil {
		return err
	}
	r, err := o.newReplay(cmd, h.spec)
	if err != nil {
		return err
	}
	if r.model, err = h.start(ctx); err != nil {
		return err
	}
	last := h.last
	switch {
	case o.to > last:
		return usage("--to %d is past the log's end, which is %d", o.to, last)
	case o.to > 0 && o.to < r.model.Seq():
		return usage("--to %d is before the log's beginning, which a compaction put at %d", o.to, r.model.Seq())
	case o.to > 0:
		last = o.to
	}
	if r.model.Seq() == last {
		return r.finish(cmd, o.json)
	}
	bar := progress(cmd, "replaying", int64(last), !o.each && !o.json)
	from := bus.Position{
		Applied: r.model.Seq(),
		Check:   func(msg *bus.Message) bool { return r.model.IsTip(replica.Message(o.model, msg)) },
	}
	defer bar.Finish()
	err = h.log.Tail(ctx, from, func(msg *bus.Message) error {
		if err := r.apply(replica.Message(o.model, msg)); err != nil {
			return err
		}
		bar.Set(int(msg.Seq))
		if msg.Seq >= last {
			return errEnough
		}
		return nil
	})
	bar.Finish()
	if !errors.Is(err, errEnough) {
		return err
	}
	return r.finish(cmd, o.json)
}

// errEnough ends a tail that has delivered what was wanted.
var errEnough = errors.New("enough")

// traceLine is what a line of a file may hold besides a learn event.
type traceLine struct {
	Seq        uint64          `json:"seq"`
	Reset      bool            `json:"reset"`
	Final      bool            `json:"final"`
	Attributes json.RawMessage `json:"attributes"`
}

// replayFile folds a file.
func (o *replayOptions) replayFile(cmd *cobra.Command) error {
	s, err := loadSpec(o.spec)
	if err != nil {
		return err
	}
	r, err := o.newReplay(cmd, s)
	if err != nil {
		return err
	}
	file := &rowsFile{name: o.file, stdin: cmd.InOrStdin(), spec: s, options: o.rows}
	file.options.Batches = true
	f, err := file.open(cmd.Context())
	if err != nil {
		return err
	}
	defer f.Close()
	differences, refused, err := o.foldRows(cmd, r, file, f)
	if err != nil {
		return err
	}
	if err := r.finish(cmd, o.json); err != nil {
		return err
	}
	switch m := r.model; {
	case m.Learned() == 0 && m.Rejected() > 0:
		return fmt.Errorf("all %d events were rejected; the first: %s", m.Rejected(), r.rejected)
	case len(differences) > 0:
		return fmt.Errorf("the state differs from the file's final lines:\n  %s", strings.Join(differences, "\n  "))
	case refused > 0:
		return fmt.Errorf("%d rows were refused", refused)
	}
	return nil
}

// foldRows folds a file's rows. It returns how the state differs from what the
// file says of it, and how many rows are no events at all.
func (o *replayOptions) foldRows(
	cmd *cobra.Command, r *replay, file *rowsFile, f *openRows,
) (differences []string, refused int, err error) {
	for o.to == 0 || r.seq < o.to {
		row, err := f.Reader.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err == nil {
			err = cmd.Context().Err()
		}
		if err != nil {
			return nil, 0, file.wrong(err)
		}
		if row.Problem != "" {
			refused++
			if refused <= maxNamed {
				fmt.Fprintf(cmd.ErrOrStderr(), "line %d is refused:\n  %s\n", row.Line, row.Problem)
			}
			continue
		}
		found, err := r.line(r.model.Spec(), row.Data)
		if err != nil {
			return nil, 0, err
		}
		for _, d := range found {
			differences = append(differences, fmt.Sprintf("line %d: %s", row.Line, d))
		}
	}
	return differences, refused, nil
}

// line folds one line of a file, or compares it and returns differences. An
// event's sequence is the line's own, or else the next one.
func (r *replay) line(s *model.Spec, line []byte) ([]string, error) {
	var t traceLine
	// A line that is no such object is a bad event, and the fold says why.
	_ = json.Unmarshal(line, &t)
	if t.Final {
		return r.model.Differences(line)
	}
	if t.Reset {
		m, err := model.New(s)
		if err != nil {
			return nil, err
		}
		r.model = m
	}
	if r.seq++; t.Seq > 0 {
		r.seq = t.Seq
	}
	if t.Attributes != nil && labelIsNull(s, line) {
		return nil, r.predict(t.Attributes)
	}
	return nil, r.apply(model.Message{Seq: r.seq, Subject: model.SubjectLearn, Data: line})
}

func labelIsNull(s *model.Spec, line []byte) bool {
	var fields map[string]json.RawMessage
	return json.Unmarshal(line, &fields) == nil && string(fields[s.Label.Name]) == "null"
}

// predict prints what the model says of a row that is not to be learned.
func (r *replay) predict(attributes []byte) error {
	row, err := r.decoder.Attributes(attributes)
	var invalid *model.InvalidError
	if errors.As(err, &invalid) {
		return r.print(replayed{Seq: r.seq, Verdict: model.Rejected.String(), Detail: invalid.Problems})
	}
	p := r.model.Predict(row)
	line := replayed{Seq: r.seq, Verdict: "predicted", Proba: r.byLabel(p.Proba)}
	if p.Known {
		line.Predict = &p.Label
	}
	return r.print(line)
}
