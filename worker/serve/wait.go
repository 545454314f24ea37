package serve

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// Headers of a request.
const (
	headerMinSeq  = "Lockstep-Min-Seq" // answer from this sequence or later
	headerTimeout = "Lockstep-Timeout" // how long to wait for it, as in 500ms or 10s
	headerInclude = "Lockstep-Include" // what a prediction has besides: "proba"
	headerID      = "Nats-Msg-Id"      // names a learn event
)

// wants is what a request's headers ask for.
type wants struct {
	minSeq  uint64
	timeout time.Duration
}

// headers reads what a request asks for, or returns a *model.InvalidError.
func headers(req bus.Request) (wants, error) {
	return parseWants(req.Header(headerMinSeq), req.Header(headerTimeout))
}

// parseWants reads the two headers; an empty one was not given.
func parseWants(minSeq, timeout string) (w wants, err error) {
	w.timeout = defaultTimeout
	var bad []model.Problem
	if minSeq != "" {
		if w.minSeq, err = strconv.ParseUint(minSeq, 10, 64); err != nil {
			bad = append(bad, model.Problem{
				Loc: []any{"header", headerMinSeq}, Msg: "Input should be a sequence, as in 345", Type: "int_parsing",
			})
		}
	}
	if timeout != "" {
		if w.timeout, err = time.ParseDuration(timeout); err != nil || w.timeout <= 0 || w.timeout > maxTimeout {
			bad = append(bad, model.Problem{
				Loc:  []any{"header", headerTimeout},
				Msg:  fmt.Sprintf("Input should be a duration up to %s, as in 500ms or 10s", maxTimeout),
				Type: "duration_parsing",
			})
		}
	}
	if len(bad) > 0 {
		return w, &model.InvalidError{Problems: bad}
	}
	return w, nil
}

// at answers a request once the replica is at the sequence it asks for.
func (s *Server) at(req bus.Request, answer func()) {
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
	err = s.parking.park(want.minSeq, len(req.Data()), want.timeout, func(err error) {
		if err != nil {
			s.waitFailed(req, want.minSeq, err)
			return
		}
		answer()
	})
	if err != nil {
		s.waitFailed(req, want.minSeq, err)
	}
}

// waitFailed says why a request did not get its sequence, and where the
// replica is.
func (s *Server) waitFailed(req bus.Request, seq uint64, err error) {
	code, hint := 503, "try again"
	if errors.Is(err, errParkTimeout) {
		code, hint = 504, "ask again, or allow more time with "+headerTimeout
	}
	refusef(req, code, "sequence %d is asked for, this replica is at %d: %v; %s", seq, s.replica.Applied(), err, hint)
}
