package web

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"lockstep/model"
	"lockstep/worker/serve"
)

// rows answers an array of rows with an array of predictions, or refuses all
// of it with the places of what is wrong.
func (s *Server) rows(served *served, w http.ResponseWriter, r *http.Request, b *body) int {
	var rows []json.RawMessage
	if json.Unmarshal(b.data, &rows) != nil { // the worker says what it would of one row
		_, err := ask(served, r, "predict", b, served.server.Predict)
		return s.failed(served, w, r, "predict", b.data, err)
	}
	if n := len(rows); n == 0 || n > model.MaxBatch {
		kind, msg := "too_short", "List should have at least 1 item after validation, not 0"
		if n > 0 {
			kind, msg = "too_long", fmt.Sprintf("List should have at most %d items after validation, not %d", model.MaxBatch, n)
		}
		return sendValue(
			w, http.StatusUnprocessableEntity,
			failure{
				Detail: details(served.Spec(), r, "predict", b.data, []model.Problem{{Loc: []any{}, Type: kind, Msg: msg}}),
			},
		)
	}
	out, bad := []byte{'['}, []detail{}
	for i, row := range rows {
		p, err := ask(served, r, "predict", &body{data: row}, served.server.Predict)
		var refusal *serve.Refusal
		switch {
		case errors.As(err, &refusal) && refusal.Code == http.StatusUnprocessableEntity:
			for _, d := range worded(served.Spec(), r, "predict", row, refusal).Detail.([]detail) {
				if d.Loc[0] == "body" {
					d.Loc = append([]any{"body", i}, d.Loc[1:]...)
				}
				bad = append(bad, d)
			}
			if len(bad) >= 64 {
				return sendValue(w, http.StatusUnprocessableEntity, failure{Detail: bad})
			}
			continue
		case err != nil:
			return s.failed(served, w, r, "predict", row, err)
		}
		if i == 0 {
			s.name(w, p.Moment)
		}
		out = append(p.AppendBare(out), ',')
	}
	if len(bad) > 0 {
		return sendValue(w, http.StatusUnprocessableEntity, failure{Detail: bad})
	}
	out[len(out)-1] = ']'
	return send(w, http.StatusOK, out)
}

// Limits of lines.
const maxLine = 1 << 20 // bytes of one

// lines answers each line with a line, as they come: a prediction, what was
// learned, or an error with its line. It holds one line at a time, and reads
// no further than the answers are taken.
func (s *Server) lines(served *served, w http.ResponseWriter, r *http.Request, verb string) int {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // what cannot do that has read all of it
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Connection", "close") // a stream that ends early leaves lines behind
	in := bufio.NewReaderSize(r.Body, 64<<10)
	out := bufio.NewWriterSize(w, 16<<10)
	flush := func() error {
		control.SetWriteDeadline(time.Now().Add(writeTimeout))
		return errors.Join(out.Flush(), control.Flush())
	}
	fail := func(n, code int, f failure) {
		line, _ := json.Marshal(struct { // texts and places always marshal
			Line int `json:"line"`
			Code int `json:"code"`
			failure
		}{n, code, f})
		out.Write(append(line, '\n'))
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() { // a client that is silent does not hold up the end
		select {
		case <-s.closing:
			control.SetReadDeadline(time.Now())
		case <-ended:
		}
	}()
	key := r.Header.Get(headerID)
	for n := 1; ; n++ {
		select {
		case <-s.closing:
			fail(n, http.StatusServiceUnavailable, failure{Detail: "this worker stops: go on with this line at another"})
			flush()
			return http.StatusServiceUnavailable
		default:
		}
		if in.Buffered() == 0 {
			if flush() != nil {
				return http.StatusRequestTimeout
			}
		}
		control.SetReadDeadline(time.Now().Add(s.bodyTimeout))
		line, err := readLine(in)
		switch {
		case errors.Is(err, io.EOF):
			flush()
			return http.StatusOK
		case errors.Is(err, errLongLine):
			fail(n, http.StatusRequestEntityTooLarge, failure{Detail: fmt.Sprintf("a line has at most %d bytes", maxLine)})
			flush()
			return http.StatusRequestEntityTooLarge
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case <-s.closing:
				continue // which says so
			default:
			}
			fail(n, http.StatusRequestTimeout, failure{Detail: fmt.Sprintf("no line came within %s", s.bodyTimeout)})
			flush()
			return http.StatusRequestTimeout
		case err != nil:
			return http.StatusBadRequest
		case first(line) == 0:
			continue
		}
		reply, err := s.askLine(served, r, verb, line, key, n)
		var refusal *serve.Refusal
		switch {
		case errors.As(err, &refusal):
			fail(n, refusal.Code, worded(served.Spec(), r, verb, line, refusal))
		case err != nil:
			return http.StatusRequestTimeout // the client went away
		default:
			out.Write(append(reply, '\n'))
		}
	}
}

// askLine asks about one line, and returns the reply as NATS clients get it;
// each line has an id of its own.
func (s *Server) askLine(
	served *served, r *http.Request, verb string, line []byte, key string, n int,
) ([]byte, error) {
	asked := *r
	if key != "" {
		asked.Header = r.Header.Clone()
		asked.Header.Set(headerID, key+":"+strconv.Itoa(n))
	}
	b := &body{data: line}
	if verb == "predict" {
		p, err := ask(served, &asked, verb, b, served.server.Predict)
		return p.AppendJSON(nil), err
	}
	t, err := ask(served, &asked, verb, b, served.server.Teach)
	if err != nil {
		return nil, err
	}
	return json.Marshal(t)
}

var errLongLine = errors.New("the line is too long")

// readLine reads the next line, which is the caller's own. The last one need
// not end.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, errLongLine
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case err != nil:
			return nil, err
		default:
			return bytes.TrimSpace(line), nil
		}
	}
}
