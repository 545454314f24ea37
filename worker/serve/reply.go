package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/model/river"
)

// Prediction is the reply to a predict request.
type Prediction struct {
	Label     json.RawMessage // null while nothing has been learned, nil of a number; shared, not to be changed
	Number    float64         // the label, where it is a number
	Predicted int64           // predictions of the fleet so far, this one included
	Proba     json.RawMessage // by class, an object; nil if it was not asked for
	Moment
	key []byte // how the reply begins
}

// Moment is what all replies have in common that are made at one state of the
// model.
type Moment struct {
	Learned uint64
	Seq     uint64
	Receipt string
	end     string // how the replies end
}

// appendLabel appends how both forms of the reply begin.
func (p *Prediction) appendLabel(dst []byte) []byte {
	dst = append(dst, p.key...)
	if p.Label == nil {
		return river.AppendNumber(dst, p.Number)
	}
	return append(dst, p.Label...)
}

// appendProba appends what both forms of the reply have before the state.
func (p *Prediction) appendProba(dst []byte) []byte {
	dst = strconv.AppendInt(append(p.appendLabel(dst), `,"predicted":`...), p.Predicted, 10)
	if p.Proba != nil {
		dst = append(append(dst, `,"proba":`...), p.Proba...)
	}
	return dst
}

// AppendJSON appends the reply as NATS clients get it.
func (p *Prediction) AppendJSON(dst []byte) []byte {
	return append(p.appendProba(dst), p.end...)
}

// AppendBare appends the reply without the state that it is of.
func (p *Prediction) AppendBare(dst []byte) []byte {
	dst = append(p.appendProba(dst), `,"learned":`...)
	return append(strconv.AppendUint(dst, p.Learned, 10), '}')
}

// Explanation is the reply to an explain request: a prediction, with the
// probabilities and what each feature added to each class. What a class has in
// all, in the unit, is its prior plus all contributions.
type Explanation struct {
	Label    json.RawMessage    `json:"-"` // under the label's own name; null while nothing has been learned
	Proba    map[string]float64 `json:"proba"`
	Unit     string             `json:"unit"` // of the prior and the contributions, such as log_likelihood; empty if there are none
	Prior    map[string]float64 `json:"prior"`
	Features []Contribution     `json:"features"`
	Learned  uint64             `json:"learned"`
	Seq      uint64             `json:"seq"`
	Receipt  string             `json:"receipt"`
	key      []byte             // how the reply begins
}

// Contribution is what one feature adds to each class. In JSON, Adds is under
// the explanation's unit.
type Contribution struct {
	Feature string
	Value   float64
	Adds    map[string]float64 // by label
	unit    string
}

// MarshalJSON writes the keys feature, value, and the unit's.
func (c Contribution) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"feature": c.Feature, "value": c.Value, c.unit: c.Adds})
}

// MarshalJSON writes the label under its own name, and first.
func (e *Explanation) MarshalJSON() ([]byte, error) {
	type plain Explanation
	rest, err := json.Marshal((*plain)(e))
	if err != nil {
		return nil, err
	}
	data := append(append([]byte(nil), e.key...), e.Label...)
	return append(append(data, ','), rest[1:]...), nil
}

// Taught is the reply to a teach: a superset of JetStream's PubAck, so that
// every client's JetStream publish understands it.
type Taught struct {
	Stream    string `json:"stream"`
	Seq       uint64 `json:"seq"`
	Index     uint64 `json:"index,omitempty"` // the event's place in the message, where that holds several
	Duplicate bool   `json:"duplicate,omitempty"`
	Status    string `json:"status"`
	Predicted int64  `json:"predicted"`
	Learned   uint64 `json:"learned"`
	Receipt   string `json:"receipt"`

	Results []TaughtEvent `json:"results,omitempty"` // a batch's, in order
}

// TaughtEvent is what the fold made of one event of a batch.
type TaughtEvent struct {
	Seq       uint64          `json:"seq"`
	Index     uint64          `json:"index,omitempty"`
	Duplicate bool            `json:"duplicate,omitempty"`
	Status    string          `json:"status"`
	Learned   uint64          `json:"learned,omitempty"`
	Detail    []model.Problem `json:"detail,omitempty"` // why it was rejected
}

// Refusal is an answer that is an error. Codes are HTTP's.
type Refusal struct {
	Code        int
	ErrCode     int // JetStream's own, of what the log refused; else 0
	Description string
	Detail      []model.Problem // what is wrong, each with its place; may be empty
	Results     []TaughtEvent   // of a batch that was partly learned, in order
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s (%d)", r.Description, r.Code) }

// refusedByLog is the refusal of what the log refused.
func refusedByLog(e *bus.RefusedError) *Refusal {
	return &Refusal{Code: e.Code, ErrCode: e.ErrCode, Description: e.Description}
}

// body is the refusal as NATS clients get it.
func (r *Refusal) body() []byte {
	if r.ErrCode != 0 { // as JetStream says it, so that its clients read it
		return (&bus.RefusedError{Code: r.Code, ErrCode: r.ErrCode, Description: r.Description}).Body()
	}
	type wireError struct {
		Code        int    `json:"code"`
		Description string `json:"description"`
	}
	body, err := json.Marshal(struct {
		Error   wireError       `json:"error"`
		Detail  []model.Problem `json:"detail,omitempty"`
		Results []TaughtEvent   `json:"results,omitempty"`
	}{wireError{r.Code, r.Description}, r.Detail, r.Results})
	if err != nil {
		return bus.ErrorBody(r.Code, r.Description, nil)
	}
	return body
}

// refuse answers a request with an error.
func refuse(req bus.Request, r *Refusal) {
	if c, direct := req.(*call); direct {
		c.end(nil, r)
		return
	}
	req.Error(r.Code, r.Description, r.body())
}

// refusef answers a request with an error that has no places.
func refusef(req bus.Request, code int, format string, args ...any) {
	refuse(req, &Refusal{Code: code, Description: fmt.Sprintf(format, args...)})
}

// invalid answers a request whose body or headers are bad with all their
// problems.
func invalid(req bus.Request, err error) {
	r := &Refusal{Code: 422, Description: err.Error()}
	var bad *model.InvalidError
	if errors.As(err, &bad) {
		r.Detail = bad.Problems
	}
	refuse(req, r)
}

// respond answers with a typed reply.
func (s *Server) respond(req bus.Request, reply any) {
	if c, direct := req.(*call); direct {
		c.end(reply, nil)
		return
	}
	data, err := json.Marshal(reply)
	if err != nil { // a number that is not finite
		s.log.Error("a reply could not be written", "error", err)
		refusef(req, 500, "the reply could not be written: %v", err)
		return
	}
	req.Reply(data)
}
