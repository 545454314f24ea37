package serve

import (
	"bytes"
	"encoding/json"
	"runtime/debug"
	"strconv"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/model/river"
)

// maxRow is how many bytes a request about a row may have: what the longest
// values take when every byte is escaped, and room for keys that are ignored.
func maxRow(s *model.Spec) int {
	n := 64 << 10
	for _, f := range s.Inputs {
		n += 6 * (len(f.Name) + f.MaxBytes)
	}
	return n
}

// rowWork is what answering a request about a row takes; it is used again for
// the next.
type rowWork struct {
	decoder *model.Decoder
	reply   []byte
}

// withRow answers a request about a row, once the replica is at its sequence.
// answer is a method and no closure, which would be allocated for each
// request.
func (s *Server) withRow(req bus.Request, answer func(*Server, bus.Request, model.Row, *rowWork)) {
	if n := len(req.Data()); n > s.maxRow {
		refusef(req, 413, "the body has %d bytes, the most is %d", n, s.maxRow)
		return
	}
	if req.Header(headerMinSeq) == "" && req.Header(headerTimeout) == "" {
		s.row(req, answer)
		return
	}
	s.at(req, func() { s.row(req, answer) })
}

func (s *Server) row(req bus.Request, answer func(*Server, bus.Request, model.Row, *rowWork)) {
	work := s.rows.Get().(*rowWork)
	defer func() {
		if value := recover(); value != nil { // of a component; the state is as it was
			s.log.Error("a component panicked", "panic", value, "stack", string(debug.Stack()))
			refusef(req, 500, "a component panicked: %v", value)
			return
		}
		s.rows.Put(work)
	}()
	row, err := work.decoder.Attributes(req.Data())
	if err != nil {
		invalid(req, err)
		return
	}
	answer(s, req, row, work)
}

// predict answers with the label of a row.
func (s *Server) predict(req bus.Request) { s.withRow(req, (*Server).replyPrediction) }

func (s *Server) replyPrediction(req bus.Request, row model.Row, work *rowWork) {
	proba, err := s.include(req)
	if err != nil {
		invalid(req, err)
		return
	}
	p, ok := s.prediction(row, proba)
	if !ok {
		s.refuseUnready(req)
		return
	}
	if c, direct := req.(*call); direct {
		c.prediction = p
		c.end(nil, nil)
		return
	}
	work.reply = p.AppendJSON(work.reply[:0])
	req.Reply(work.reply)
}

// include reports whether a prediction is to have its probabilities.
func (s *Server) include(req bus.Request) (proba bool, err error) {
	msg := ""
	switch include := req.Header(headerInclude); {
	case include == "":
		return false, nil
	case include != "proba":
		msg = "Input should be 'proba'"
	case s.cfg.Spec.Label.Type == model.Number:
		msg = "A label that is a number has no probabilities"
	default:
		return true, nil
	}
	return false, &model.InvalidError{Problems: []model.Problem{
		{Loc: []any{"header", headerInclude}, Msg: msg, Type: "literal_error"},
	}}
}

// prediction predicts a row, with probabilities if they are wanted; false if
// the model has failed.
func (s *Server) prediction(row model.Row, proba bool) (p Prediction, ok bool) {
	m := s.replica.Lock()
	defer s.replica.Unlock()
	if m == nil {
		return p, false
	}
	predicted := m.Predict(row)
	p.Label, p.Number, p.Moment = s.labels.of(m, predicted), predicted.Label.Num, s.labels.moment(m)
	p.key, p.Predicted = s.labels.key, s.predicted.add()
	if proba {
		p.Proba = probabilities(m.Labels(), predicted.Proba)
	}
	return p, true
}

// probabilities are those of each class, in the order of first learning, as
// JSON.
func probabilities(labels []string, proba []float64) json.RawMessage {
	out := []byte{'{'}
	for class, p := range proba {
		if class > 0 {
			out = append(out, ',')
		}
		out = river.AppendNumber(append(append(out, quote(labels[class])...), ':'), p)
	}
	return append(out, '}')
}

// refuseUnready answers a request that the replica cannot answer now.
func (s *Server) refuseUnready(req bus.Request) {
	refusef(req, 503, "this replica does not serve now: %s", s.replica.Unready())
}

// labels is what replies at the present state of the model are made of. The
// replica's lock guards it.
type labels struct {
	key    []byte // how a prediction's reply begins
	model  *model.Model
	quoted []json.RawMessage // the model's labels, by class
	now    Moment            // of the model at now.Seq; without end if there is none yet
}

var null = json.RawMessage("null")

func (l *labels) begin(name string) { l.key = append(append([]byte{'{'}, quote(name)...), ':') }

// use forgets what is known of another model.
func (l *labels) use(m *model.Model) {
	if l.model != m {
		l.model, l.quoted, l.now = m, nil, Moment{}
	}
}

// of is a prediction's label as JSON; nil if it is a number.
func (l *labels) of(m *model.Model, p model.Prediction) json.RawMessage {
	switch {
	case !p.Known:
		return null
	case p.Label.Type == model.Number:
		return nil
	}
	l.use(m)
	for len(l.quoted) <= p.Class() {
		l.quoted = append(l.quoted, nil)
	}
	if l.quoted[p.Class()] == nil {
		l.quoted[p.Class()] = p.Label.AppendJSON(nil)
	}
	return l.quoted[p.Class()]
}

// moment is the model's present. It is built once per sequence, for it is the
// same for all replies.
func (l *labels) moment(m *model.Model) Moment {
	l.use(m)
	if l.now.Seq == m.Seq() && l.now.end != "" {
		return l.now
	}
	receipt := m.Receipt().String()
	buf := make([]byte, 0, 128)
	buf = strconv.AppendUint(append(buf, `,"learned":`...), m.Learned(), 10)
	buf = strconv.AppendUint(append(buf, `,"seq":`...), m.Seq(), 10)
	buf = append(append(append(buf, `,"receipt":"`...), receipt...), `"}`...)
	l.now = Moment{Learned: m.Learned(), Seq: m.Seq(), Receipt: receipt, end: string(buf)}
	return l.now
}

// quote is a text as JSON.
func quote(text string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic(err) // texts always encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
