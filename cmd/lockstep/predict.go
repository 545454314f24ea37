package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/cmd/lockstep/internal/rows"
	"lockstep/model"
)

// row is one event given on the command line: as JSON, or field by field.
type row struct {
	connection
	specName string
	fields   []string
	minSeq   uint64
	json     bool
}

func (r *row) addFlags(cmd *cobra.Command) {
	r.addClientFlags(cmd)
	addSpecFlag(cmd, &r.specName)
	cmd.Flags().
		StringArrayVarP(&r.fields, "field", "f", nil, "a field as name=value, again for each; one that is left out is null")
	cmd.Flags().Uint64Var(&r.minSeq, "min-seq", 0, "answer from this sequence of the log or later")
	cmd.Flags().BoolVar(&r.json, "json", false, "print the answer as it came, in JSON")
}

// body is the request: the argument, standard input for "-", or the fields
// under the names of the spec, with a label if one is wanted.
func (r *row) body(cmd *cobra.Command, args []string, withLabel bool) ([]byte, error) {
	ofLog := cmd.Flags().Changed("model") && !cmd.Flags().Changed("spec")
	var s *model.Spec
	var err error
	if !ofLog {
		if s, err = loadSpec(r.specName); err != nil {
			return nil, err
		}
	}
	if cmd.Flags().Changed("spec") && !cmd.Flags().Changed("model") {
		r.model = s.Name
	}
	switch {
	case len(args) == 1 && len(r.fields) > 0:
		return nil, usage("give the event as JSON or by --field, not both")
	case len(args) == 1 && args[0] == "-":
		return readAll(cmd, "-")
	case len(args) == 1:
		return []byte(args[0]), nil
	case len(r.fields) == 0:
		return nil, usage(
			"give the event as JSON, by --field name=value, or as - on standard input\nsee: %s --help",
			cmd.CommandPath(),
		)
	}
	if ofLog {
		if s, err = r.logSpec(cmd); err != nil {
			return nil, err
		}
	}
	return fieldsBody(s, r.fields, withLabel)
}

// logSpec is the spec that a model's log was made with.
func (r *row) logSpec(cmd *cobra.Command) (*model.Spec, error) {
	nc, err := r.connect(cmd.Context(), "predict")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	h, err := openHistory(cmd, nc, r.model)
	var denied *bus.PermissionError
	switch {
	case errors.As(err, &denied):
		return nil, fmt.Errorf(
			"%w; a user who may not read the log gives the model's spec with --spec, or the event as JSON", err,
		)
	case err != nil:
		return nil, err
	}
	return h.spec, nil
}

// fieldsBody makes a request of name=value texts. The spec tells numbers from
// texts; what it refuses, the worker refuses, and says why.
func fieldsBody(s *model.Spec, fields []string, withLabel bool) ([]byte, error) {
	given := map[string]string{}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, usage("--field %q is not name=value", field)
		}
		if !utf8.ValidString(field) {
			return nil, usage("--field %s is not UTF-8", rows.Show(field))
		}
		if _, twice := given[name]; twice {
			return nil, usage("--field %q is given twice", name)
		}
		given[name] = value
	}
	attributes := map[string]any{}
	for _, f := range s.Inputs {
		value, ok := given[f.Name]
		delete(given, f.Name)
		switch {
		case !ok, value == "": // as in a CSV file
			attributes[f.Name] = nil
		case f.Type == model.Number && !json.Valid([]byte(value)):
			return nil, usage("--field %s=%s: not a number", f.Name, printable.Text(value))
		case f.Type == model.Boolean && value != "true" && value != "false":
			return nil, usage("--field %s=%s: write true or false", f.Name, printable.Text(value))
		case !f.Type.IsText() && json.Valid([]byte(value)):
			attributes[f.Name] = json.RawMessage(value)
		default:
			attributes[f.Name] = value
		}
	}
	var body any = attributes
	if label, ok := given[s.Label.Name]; withLabel && ok && label != "" {
		delete(given, s.Label.Name)
		var given any = label
		if !s.Label.Type.IsText() && json.Valid([]byte(label)) {
			given = json.RawMessage(label)
		}
		body = map[string]any{"attributes": attributes, s.Label.Name: given}
	} else if withLabel {
		return nil, usage("--field %s=… is missing: what is to be learned", s.Label.Name)
	}
	for name := range given { // order: any of the wrong names will do
		return nil, usage("the spec %s has no field %q", s.Name, name)
	}
	return json.Marshal(body)
}

// ask sends a request to an endpoint of the model and returns the answer.
func (r *row) ask(ctx context.Context, verb string, body []byte, header nats.Header) (*nats.Msg, error) {
	nc, err := r.connect(ctx, verb)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	if r.minSeq > 0 {
		header.Set("Lockstep-Min-Seq", fmt.Sprint(r.minSeq))
	}
	// The worker waits as long as it is told to, and says why it gave up.
	header.Set("Lockstep-Timeout", min(r.timeout, time.Minute).String())
	ctx, cancel := context.WithTimeout(ctx, r.timeout+time.Second)
	defer cancel()
	answer, err := bus.Ask(ctx, nc, r.model+"."+verb, body, header)
	return answer, remote(err)
}

func predictCommand() *cobra.Command {
	var r row
	var why bool
	cmd := &cobra.Command{
		Use:   "predict [JSON]",
		Short: "Ask the fleet for a prediction",
		Example: `  lockstep predict -f island=Torgersen -f bill_length_mm=39.1 -f sex=male
  lockstep predict '{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}'
  lockstep predict --why -f island=Dream -f body_mass_g=3700`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := r.body(cmd, args, false)
			if err != nil {
				return err
			}
			verb := "predict"
			if why {
				verb = "explain"
			}
			answer, err := r.ask(cmd.Context(), verb, body, nats.Header{})
			if err != nil {
				return err
			}
			return printPrediction(cmd.OutOrStdout(), answer.Data, r.json)
		},
	}
	r.addFlags(cmd)
	cmd.Flags().BoolVar(&why, "why", false, "explain: probabilities, and what each feature added")
	return cmd
}

// answerLabel is the label of an answer, whatever the spec calls it: the first
// key.
func answerLabel(answer []byte) (label any, err error) {
	d := json.NewDecoder(bytes.NewReader(answer))
	for range 2 { // the brace, the key
		if _, err := d.Token(); err != nil {
			return nil, err
		}
	}
	return label, d.Decode(&label)
}

func printPrediction(out io.Writer, answer []byte, asJSON bool) error {
	var a struct {
		Proba    map[string]float64           `json:"proba"`
		Unit     string                       `json:"unit"` // the key of what a feature adds to each label
		Features []map[string]json.RawMessage `json:"features"`
		Learned  uint64                       `json:"learned"`
		Seq      uint64                       `json:"seq"`
	}
	label, err := answerLabel(answer)
	if err := errors.Join(err, json.Unmarshal(answer, &a)); asJSON || err != nil {
		_, err := fmt.Fprintf(out, "%s\n", answer)
		return err
	}
	if label == nil {
		_, err := fmt.Fprintf(out, "no prediction: nothing has been learned yet\n")
		return err
	}
	fmt.Fprintf(out, "%s  (after %d learned, at sequence %d)\n", printable.Text(fmt.Sprint(label)), a.Learned, a.Seq)
	for _, label := range sorted(a.Proba) {
		fmt.Fprintf(out, "  %-14s %6.2f %%\n", printable.Text(label), 100*a.Proba[label])
	}
	for _, f := range a.Features {
		var name string
		var value float64
		var adds map[string]float64
		err := errors.Join(
			json.Unmarshal(f["feature"], &name), json.Unmarshal(f["value"], &value),
			json.Unmarshal(f[a.Unit], &adds),
		)
		if err != nil {
			return fmt.Errorf("the reply's features: %w", err)
		}
		fmt.Fprintf(out, "  %-20s %10.4g ", printable.Text(name), value)
		for _, label := range sorted(adds) {
			fmt.Fprintf(out, "  %s %+.2f", printable.Text(label), adds[label])
		}
		fmt.Fprintln(out)
	}
	return nil
}
