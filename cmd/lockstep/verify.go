package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/terminal"
	"lockstep/model"
	"lockstep/worker/fleet"
)

type verifyOptions struct {
	connection
	json    bool
	receipt string
	request string
	reply   string
}

func verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that all replicas are identical, or that an answer was right",
		Long: `Verify appends a checkpoint to the log, at which every replica attests its state,
and folds the log itself as the arbiter. Exit code 0 only if every live replica
is the same as that fold, bit for bit. Where one differs, the arbiter's word goes
to the fleet: it breaks a tie between two replicas.

With --receipt it replays the log to the place that a receipt names, and says
whether the state there is the one that answered; with --request it predicts
again from it, bit for bit, and with --reply compares what was answered.`,
		Example: `  lockstep verify
  lockstep verify --json
  lockstep verify --receipt r1.67258ab6… --request row.json --reply answer.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.receipt == "" && (o.request != "" || o.reply != "") {
				return usage("--request and --reply go with --receipt")
			}
			nc, err := o.connect(cmd.Context(), "verify")
			if err != nil {
				return err
			}
			defer nc.Close()
			h, err := openFleet(cmd, nc, o.model)
			if err != nil {
				return err
			}
			if o.receipt != "" {
				return o.verifyReceipt(cmd, h)
			}
			return o.verifyFleet(cmd, h)
		},
	}
	o.addClientFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.StringVar(&o.receipt, "receipt", "", "verify this receipt of an answer")
	f.StringVar(
		&o.request, "request", "",
		"with --receipt: the request's body, to predict again; a file, - is standard input",
	)
	f.StringVar(&o.reply, "reply", "", "with --request: the answer's body, to compare; a file")
	return cmd
}

// verified is what verify --json prints.
type verified struct {
	Identical   bool              `json:"identical"`
	Seq         uint64            `json:"seq"`
	Digest      string            `json:"digest"` // the arbiter's
	Replicas    []verifiedReplica `json:"replicas"`
	FirstBadSeq *uint64           `json:"first_bad_seq"` // the first checkpoint at which somebody differs
	Blame       []string          `json:"blame"`         // who differs; "log" if the servers hold different histories
}

type verifiedReplica struct {
	Replica string `json:"replica"`
	State   string `json:"state"`
	Digest  string `json:"digest,omitempty"`
	Same    bool   `json:"same"`
	Reason  string `json:"reason,omitempty"` // why not
}

// verifyFleet compares every live replica with a fold of the log.
func (o *verifyOptions) verifyFleet(cmd *cobra.Command, h *history) error {
	ctx := cmd.Context()
	seq, err := h.checkpoint(ctx, false)
	if err != nil {
		return err
	}
	m, err := h.start(ctx)
	if err != nil {
		return err
	}
	past, err := pastCheckpoints(ctx, h)
	if err != nil {
		return err
	}
	own := map[uint64]fleet.Attestation{}
	final, err := h.foldTo(cmd, m, seq, !o.json, func(m *model.Model) {
		if _, attested := past[m.Seq()]; attested {
			own[m.Seq()] = fleet.Attest(m)
		}
	})
	if err != nil {
		return fmt.Errorf("the log cannot be folded: %w", err)
	}
	replicas, votes, err := h.attested(ctx, seq, o.timeout)
	if err != nil {
		return err
	}
	result := compareFleet(final, replicas, votes)
	for at, attestations := range past {
		for _, a := range attestations {
			arbiter, folded := own[at]
			live := slices.ContainsFunc(replicas, func(h fleet.Heartbeat) bool { return h.Replica == a.Replica })
			if folded && live && a.Comparable(arbiter) && !a.Same(arbiter) &&
				(result.FirstBadSeq == nil || at < *result.FirstBadSeq) {
				result.FirstBadSeq = &at
			}
		}
	}
	if len(result.Blame) > 0 { // the third vote, where there are but two
		final.Replica, final.Arbiter = "arbiter-"+bus.NewID()[16:], true
		value, err := json.Marshal(final)
		if err == nil {
			err = h.Checkpoints.Put(ctx, fleet.AttestKey(seq)+"."+final.Replica, value)
		}
		if err != nil {
			return fmt.Errorf("the arbiter's word could not be left: %w", err)
		}
	}
	return o.print(cmd, result)
}

// pastCheckpoints are the attestations that the fleet still has, by sequence.
func pastCheckpoints(ctx context.Context, h *history) (map[uint64][]fleet.Attestation, error) {
	all, err := fleet.AllAttestations(ctx, h.Checkpoints)
	if err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	out := map[uint64][]fleet.Attestation{}
	for _, a := range all {
		if !a.Arbiter {
			out[a.Seq] = append(out[a.Seq], a)
		}
	}
	return out, nil
}

// attested waits until every live replica has attested a checkpoint.
func (h *history) attested(
	ctx context.Context, seq uint64, timeout time.Duration,
) ([]fleet.Heartbeat, []fleet.Attestation, error) {
	for deadline := time.Now().Add(timeout); ; {
		replicas, err := fleet.Heartbeats(ctx, h.Heartbeats)
		if err != nil {
			return nil, nil, &exitError{exitUnreachable, err}
		}
		votes, err := fleet.Attestations(ctx, h.Checkpoints, seq)
		if err != nil {
			return nil, nil, &exitError{exitUnreachable, err}
		}
		missing := slices.ContainsFunc(replicas, func(h fleet.Heartbeat) bool {
			return !slices.ContainsFunc(votes, func(a fleet.Attestation) bool { return a.Replica == h.Replica })
		})
		if !missing && len(replicas) > 0 || time.Now().After(deadline) {
			return replicas, votes, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// compareFleet compares what replicas attested with the arbiter's fold.
func compareFleet(arbiter fleet.Attestation, replicas []fleet.Heartbeat, votes []fleet.Attestation) verified {
	out := verified{
		Identical: len(replicas) > 0, Seq: arbiter.Seq, Digest: arbiter.Digest,
		Replicas: []verifiedReplica{}, Blame: []string{},
	}
	differs := func(who string) {
		if !slices.Contains(out.Blame, who) {
			out.Blame = append(out.Blame, who)
		}
		out.FirstBadSeq = &out.Seq
	}
	for _, h := range replicas {
		r := verifiedReplica{Replica: h.Replica, State: h.State}
		i := slices.IndexFunc(votes, func(a fleet.Attestation) bool { return a.Replica == h.Replica })
		switch {
		case i < 0:
			r.Reason = fmt.Sprintf("it has not attested: it is at %d", h.Seq)
		case !votes[i].Comparable(arbiter):
			r.Reason = "it folds another log, contract or encoding"
		case votes[i].LogChain != arbiter.LogChain:
			r.Reason = "it has read another history than this fold: the servers differ"
			differs("log")
		case !votes[i].Same(arbiter):
			r.Reason = "of the same log it has made another state"
			differs(h.Replica)
		case h.State == fleet.Quarantined.String():
			r.Reason = "it is quarantined"
		default:
			r.Same = true
		}
		if i >= 0 {
			r.Digest = votes[i].Digest
		}
		out.Identical = out.Identical && r.Same
		out.Replicas = append(out.Replicas, r)
	}
	return out
}

func (o *verifyOptions) print(cmd *cobra.Command, v verified) error {
	if o.json {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(v); err != nil {
			return err
		}
	} else {
		t := terminal.Table{Columns: []terminal.Column{
			{Name: "replica", Wrap: true}, {Name: "state"}, {Name: "digest", Rank: 1}, {Name: "identical", Wrap: true},
		}}
		t.Add("this fold of the log", "", fmt.Sprintf("%.12s", v.Digest), "")
		for _, r := range v.Replicas {
			same := "yes"
			if !r.Same {
				same = "NO: " + r.Reason
			}
			t.Add(r.Replica, r.State, fmt.Sprintf("%.12s", r.Digest), same)
		}
		t.Write(cmd.OutOrStdout())
	}
	switch {
	case len(v.Replicas) == 0:
		return &exitError{exitUnreachable, errors.New("no replica is alive: start one with lockstep worker")}
	case !v.Identical && v.FirstBadSeq != nil:
		return fmt.Errorf(
			"not identical at sequence %d; the first checkpoint that differs is %d; to blame: %s", v.Seq,
			*v.FirstBadSeq, strings.Join(v.Blame, ", "),
		)
	case !v.Identical:
		return fmt.Errorf(
			"not proven: not every replica attested sequence %d in time (see --timeout), or one is quarantined",
			v.Seq,
		)
	case !o.json:
		who := fmt.Sprintf("All %d replicas are identical", len(v.Replicas))
		if len(v.Replicas) == 1 {
			who = "The one replica is identical"
		}
		out := cmd.OutOrStdout()
		proof := fmt.Sprintf("%s at sequence %d, and the same as a fold of the log from outside.", who, v.Seq)
		fmt.Fprintln(out, terminal.Wrap(proof, terminal.Width(out)))
	}
	return nil
}

// reproduced is what verify --receipt --json prints. What is predicted again
// stands under the label's own name, and is null where the state has learned
// nothing.
type reproduced struct {
	replayedState
	labelName string // empty without a request
	label     *model.Target
	replayedAnswer
}

// The keys of reproduced before and after the label: in the model's list of
// names that no label may have.
type (
	replayedState struct {
		Reproduced bool   `json:"reproduced"`
		Seq        uint64 `json:"seq"`
		StateChain string `json:"state_chain"`
	}
	replayedAnswer struct {
		Proba  map[string]float64 `json:"proba,omitempty"`
		Reason string             `json:"error,omitempty"` // why it is not reproduced
	}
)

// MarshalJSON puts the label under its own name.
func (r reproduced) MarshalJSON() ([]byte, error) {
	parts := []any{r.replayedState}
	if r.labelName != "" {
		parts = append(parts, map[string]*model.Target{r.labelName: r.label})
	}
	return joinObjects(append(parts, r.replayedAnswer)...)
}

// joinObjects is one JSON object with the members of several.
func joinObjects(parts ...any) ([]byte, error) {
	out := []byte{'{'}
	for _, part := range parts {
		data, err := json.Marshal(part)
		if err != nil {
			return nil, err
		}
		if members := data[1 : len(data)-1]; len(members) > 0 {
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, members...)
		}
	}
	return append(out, '}'), nil
}

// verifyReceipt replays the log to a receipt's place.
func (o *verifyOptions) verifyReceipt(cmd *cobra.Command, h *history) error {
	r, err := model.ParseReceipt(o.receipt)
	if err != nil {
		return usage("%w", err)
	}
	g, err := model.ParseGenesis(h.genesis)
	if err != nil {
		return err
	}
	switch {
	case r.Incarnation != g.Incarnation:
		return fmt.Errorf(
			"the receipt is of another log (%s) than the one of %s (%s), which was made anew since", r.Incarnation,
			h.name, g.Incarnation,
		)
	case r.Contract != g.Contract[:len(r.Contract)]:
		return fmt.Errorf("the receipt is of another contract (%s) than the log's (%.16s)", r.Contract, g.Contract)
	case r.Seq > h.last:
		return fmt.Errorf(
			"the receipt is of sequence %d, and the log ends at %d: it was rolled back, or the receipt is forged",
			r.Seq, h.last,
		)
	case h.first > 1 && (h.base == nil || r.Seq < h.base.Seq):
		return fmt.Errorf(
			"the receipt is of sequence %d, and a compaction cut the log below %d: it can be verified no more",
			r.Seq, h.first,
		)
	}
	m, err := h.start(cmd.Context())
	if err != nil {
		return err
	}
	if _, err := h.foldTo(cmd, m, r.Seq, !o.json, nil); err != nil {
		return fmt.Errorf("the log cannot be folded: %w", err)
	}
	chain := m.StateChain()
	out := reproduced{replayedState: replayedState{m.Receipt() == r, r.Seq, hex.EncodeToString(chain[:])}}
	if !out.Reproduced {
		out.Reason = fmt.Sprintf("the log gives the state chain %.32s there, and not %s", out.StateChain, r.StateChain)
	} else if o.request != "" {
		if err := o.predictAgain(cmd, m, &out); err != nil {
			return err
		}
	}
	if o.json {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(out); err != nil {
			return err
		}
	} else if out.Reproduced {
		fmt.Fprintf(cmd.OutOrStdout(), "The state at sequence %d is the one that answered.\n", r.Seq)
		if o.request != "" {
			data, err := json.Marshal(map[string]any{h.spec.Label.Name: out.label, "proba": out.Proba})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "It answers %s\n", data)
		}
	}
	if !out.Reproduced {
		return errors.New("not reproduced: " + out.Reason)
	}
	return nil
}

// predictAgain predicts what was asked, and compares what was answered.
func (o *verifyOptions) predictAgain(cmd *cobra.Command, m *model.Model, out *reproduced) error {
	data, err := readAll(cmd, o.request)
	if err != nil {
		return err
	}
	row, err := model.NewDecoder(m.Spec()).Attributes(data)
	if err != nil {
		return usage("%s: %w", o.request, err)
	}
	out.labelName = m.Spec().Label.Name
	p := m.Predict(row)
	if p.Known {
		out.label = &p.Label
	}
	out.Proba = map[string]float64{}
	for class, value := range p.Proba {
		out.Proba[m.Labels()[class]] = value
	}
	if o.reply == "" {
		return nil
	}
	if data, err = os.ReadFile(o.reply); err != nil {
		return usage("%w", err)
	}
	var answer map[string]json.RawMessage
	var label any
	var proba map[string]float64
	if err := json.Unmarshal(data, &answer); err != nil {
		return usage("%s: %w", o.reply, err)
	}
	if err := json.Unmarshal(answer[m.Spec().Label.Name], &label); err != nil {
		return usage("%s has no %s: %w", o.reply, m.Spec().Label.Name, err)
	}
	var own any
	if out.label != nil {
		text, err := json.Marshal(out.label)
		if err == nil {
			err = json.Unmarshal(text, &own)
		}
		if err != nil {
			return err
		}
	}
	same := label == own
	if text, given := answer["proba"]; given { // of an explain
		if err := json.Unmarshal(text, &proba); err != nil {
			return usage("%s: proba: %w", o.reply, err)
		}
		for name, value := range proba {
			same = same && out.Proba[name] == value
		}
		same = same && len(proba) == len(out.Proba)
	}
	if out.Reproduced = same; !same {
		out.Reason = "the answer is another than this state gives"
	}
	return nil
}
