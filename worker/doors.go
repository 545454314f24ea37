package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// Headers of a request.
const (
	headerMinSeq  = "Lockstep-Min-Seq" // answer from this sequence or later
	headerTimeout = "Lockstep-Timeout" // how long to wait for it, as in 500ms or 10s
	headerID      = "Nats-Msg-Id"      // names a learn event
)

// modelService is what the fleet answers as one.
func (w *Worker) modelService() bus.ServiceConfig {
	name := w.cfg.Spec.Name
	endpoint := func(verb string, handler func(bus.Request)) bus.Endpoint {
		return bus.Endpoint{Name: verb, Subject: name + "." + verb, Queue: "lockstep", Handler: handler, Answered: w.observer(verb)}
	}
	return bus.ServiceConfig{
		Name: name, Version: w.cfg.Version, Description: "predicts and learns " + w.cfg.Spec.Label.Name, Metadata: w.metadata(),
		Endpoints: []bus.Endpoint{
			endpoint("predict", w.predict),
			endpoint("teach", w.teach),
			endpoint("explain", w.explain),
		},
	}
}

// statusService is what every replica answers for itself.
func (w *Worker) statusService() bus.ServiceConfig {
	name := w.cfg.Spec.Name
	return bus.ServiceConfig{
		Name: name + "-replica", Version: w.cfg.Version, Description: "one replica of " + name, Metadata: w.metadata(),
		Endpoints: []bus.Endpoint{{Name: "status", Subject: name + ".status", Handler: w.status, Answered: w.observer("status")}},
	}
}

func (w *Worker) metadata() map[string]string {
	contract := w.cfg.Spec.Contract()
	return map[string]string{"replica": w.cfg.Name, "contract": fmt.Sprintf("%x", contract[:8])}
}

// refuse answers a request with an error: what is wrong, and every place.
func refuse(req bus.Request, code int, description string, detail []model.Problem) {
	var places any
	if len(detail) > 0 {
		places = detail
	}
	req.Error(code, description, bus.ErrorBody(code, description, places))
}

// invalid answers a request whose body is bad with all its problems.
func invalid(req bus.Request, err error) {
	var bad *model.InvalidError
	if errors.As(err, &bad) {
		refuse(req, 422, bad.Error(), bad.Problems)
		return
	}
	refuse(req, 422, err.Error(), nil)
}

// wants is what a request's headers ask for.
type wants struct {
	minSeq  uint64
	timeout time.Duration
}

func headers(req bus.Request) (wants, error) {
	return parseWants(req.Header(headerMinSeq), req.Header(headerTimeout))
}

// parseWants reads the two headers; empty is not given.
func parseWants(minSeq, patience string) (wants, error) {
	w := wants{timeout: defaultTimeout}
	var bad []model.Problem
	if text := minSeq; text != "" {
		seq, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			bad = append(bad, model.Problem{Loc: []any{"header", headerMinSeq}, Msg: "Input should be a sequence, as in 345", Type: "int_parsing"})
		}
		w.minSeq = seq
	}
	if text := patience; text != "" {
		timeout, err := time.ParseDuration(text)
		if err != nil || timeout <= 0 || timeout > maxTimeout {
			bad = append(bad, model.Problem{Loc: []any{"header", headerTimeout}, Msg: fmt.Sprintf("Input should be a duration up to %s, as in 500ms or 10s", maxTimeout), Type: "duration_parsing"})
		}
		w.timeout = timeout
	}
	if len(bad) > 0 {
		return w, &model.InvalidError{Problems: bad}
	}
	return w, nil
}

// at answers a request once the replica is at the sequence it asks for.
func (w *Worker) at(req bus.Request, answer func()) {
	want, err := headers(req)
	if err != nil {
		invalid(req, err)
		return
	}
	if want.minSeq == 0 {
		answer()
		return
	}
	req.Keep()
	err = w.parking.park(want.minSeq, len(req.Data()), want.timeout, func(err error) {
		if err != nil {
			w.waitFailed(req, want.minSeq, err)
			return
		}
		answer()
	})
	if err != nil {
		w.waitFailed(req, want.minSeq, err)
	}
}

// waitFailed says why a request did not get its sequence, and where the
// replica is.
func (w *Worker) waitFailed(req bus.Request, seq uint64, err error) {
	applied := w.replica.position().Applied
	code, hint := 503, "try again"
	if errors.Is(err, errParkTimeout) {
		code, hint = 504, "ask again, or allow more time with "+headerTimeout
	}
	refuse(req, code, fmt.Sprintf("sequence %d is asked for, this replica is at %d: %v; %s", seq, applied, err, hint), nil)
}

// maxRow is how many bytes a request about a row may have: what the longest
// values take when every byte is escaped, and room for keys that are ignored.
func maxRow(s *model.Spec) int {
	n := 64 << 10
	for _, f := range s.Inputs {
		n += 6 * (len(f.Name) + f.MaxBytes)
	}
	return n
}

// withRow answers a request about a row, once the replica is at its sequence.
// answer is a method of the worker's and no closure, which would be allocated
// for each request.
func (w *Worker) withRow(req bus.Request, answer func(*Worker, bus.Request, model.Row)) {
	if n := len(req.Data()); n > w.maxRow {
		refuse(req, 413, fmt.Sprintf("the body has %d bytes, the most is %d", n, w.maxRow), nil)
		return
	}
	if req.Header(headerMinSeq) == "" && req.Header(headerTimeout) == "" {
		w.row(req, answer)
		return
	}
	w.at(req, func() { w.row(req, answer) })
}

func (w *Worker) row(req bus.Request, answer func(*Worker, bus.Request, model.Row)) {
	d := w.decoders.Get().(*model.Decoder)
	defer w.decoders.Put(d)
	row, err := d.Attributes(req.Data())
	if err != nil {
		invalid(req, err)
		return
	}
	answer(w, req, row)
}

// predict answers with the label of a row.
func (w *Worker) predict(req bus.Request) { w.withRow(req, (*Worker).replyPrediction) }

func (w *Worker) replyPrediction(req bus.Request, row model.Row) {
	reply := w.replies.Get().(*[]byte)
	*reply = w.prediction((*reply)[:0], row)
	req.Reply(*reply)
	w.replies.Put(reply)
}

// prediction appends the reply to a prediction.
func (w *Worker) prediction(reply []byte, row model.Row) []byte {
	r := w.replica
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.model.Predict(row)
	reply = append(reply, w.labelKey...)
	reply = append(r.appendLabel(reply, p), `,"predicted":`...)
	reply = strconv.AppendInt(reply, w.predicted.add(), 10)
	return append(reply, r.replyTail()...)
}

// explanation is the reply to an explain request. What a class has in all, in
// the unit, is its prior plus all contributions.
type explanation struct {
	label    []byte             // as JSON
	Proba    map[string]float64 `json:"proba"`
	Unit     string             `json:"unit"` // which key the contributions have
	Prior    map[string]float64 `json:"prior"`
	Features []contribution     `json:"features"`
	Learned  uint64             `json:"learned"`
	Seq      uint64             `json:"seq"`
	Receipt  string             `json:"receipt"`
}

// contribution has the keys feature, value, and that of the explanation's unit,
// such as log_likelihood, for what the feature adds to each class.
type contribution map[string]any

// explain answers like predict, with the probabilities and what each feature
// added to each class.
func (w *Worker) explain(req bus.Request) { w.withRow(req, (*Worker).replyExplanation) }

func (w *Worker) replyExplanation(req bus.Request, row model.Row) {
	e := w.explanation(row)
	data, err := json.Marshal(e)
	if err != nil { // a number that is not finite
		w.respond(req, e) // says so
		return
	}
	reply := append(append([]byte(nil), w.labelKey...), e.label...)
	req.Reply(append(append(reply, ','), data[1:]...))
}

func (w *Worker) explanation(row model.Row) explanation {
	r := w.replica
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.model.Explain(row)
	byLabel := func(values []float64) map[string]float64 {
		out := make(map[string]float64, len(values))
		for class, v := range values {
			out[r.model.Labels()[class]] = v
		}
		return out
	}
	out := explanation{
		Proba: byLabel(e.Proba), Unit: string(e.Unit), Prior: byLabel(e.Prior), Features: []contribution{},
		Learned: r.model.Learned(), Seq: r.model.Seq(), Receipt: r.model.Receipt().String(),
	}
	out.label = []byte("null")
	if e.Known {
		out.label = quote(e.Label)
	}
	for _, f := range e.Features {
		out.Features = append(out.Features, contribution{
			"feature": f.Feature, "value": f.Value, string(e.Unit): byLabel(f.Adds),
		})
	}
	return out
}

func (w *Worker) status(req bus.Request) { w.respond(req, w.Status()) }

// Status is what the worker's replica says of itself now.
func (w *Worker) Status() fleet.Status {
	s := fleet.Status{
		Replica: w.cfg.Name, State: w.State().String(), Lag: w.lag.messages(), Predicted: w.predicted.value(),
		Stream: w.cfg.Stream, Version: w.cfg.Version,
		Started: w.started.UTC().Truncate(time.Second), UptimeS: int64(time.Since(w.started).Seconds()),
		Parked: w.parking.len(), Advisory: w.advisory(), Dropped: w.cfg.Doors.Dropped(),
		Folds: w.folds.Load() + w.epochs.Load(), Healings: w.healings.Load(),
		Uncounted: w.predicted.given(), Unreported: w.rejects.dropped.Load(),
	}
	if from := w.from.Load(); from != nil {
		s.Restored = from.Seq
	}
	w.replica.describeStatus(&s)
	return s
}

// respond answers with a value as JSON.
func (w *Worker) respond(req bus.Request, v any) {
	data, err := json.Marshal(v)
	if err != nil { // a number that is not finite
		w.log.Error("a reply could not be written", "error", err)
		refuse(req, 500, "the reply could not be written: "+err.Error(), nil)
		return
	}
	req.Reply(data)
}
