package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/model"
	"lockstep/worker/fleet"
	"lockstep/worker/serve"
)

// Headers of answers. Those of requests are as over NATS, but for the name
// that HTTP has for a request's id.
const (
	headerSeq       = "Lockstep-Seq"
	headerReceipt   = "Lockstep-Receipt"
	headerDuplicate = "Lockstep-Duplicate"
	headerID        = "Idempotency-Key"
)

// Limits of bodies.
const (
	maxBody   = 8 << 20   // bytes of one
	maxBodies = 128 << 20 // of all that are in memory at once
	firstRead = 4 << 10
)

// predict answers with the label of a row, or of each row of an array or of
// lines.
func (s *Server) predict(served *served, w http.ResponseWriter, r *http.Request) int {
	return s.body(w, r, func(b *body) int { return s.lines(served, w, r, "predict") }, func(b *body) int {
		if first(b.data) == '[' {
			return s.rows(served, w, r, b)
		}
		p, err := ask(served, r, "predict", b, served.server.Predict)
		if err != nil {
			return s.failed(served, w, r, "predict", b.data, err)
		}
		s.name(w, p.Moment)
		return send(w, http.StatusOK, p.AppendBare(nil))
	})
}

// named is what the headers say that replies of one sequence have in common.
type named struct {
	moment       serve.Moment
	seq, receipt []string
}

// name says in a reply's headers which state it is of. Most are of the same
// state as the one before.
func (s *Server) name(w http.ResponseWriter, m serve.Moment) {
	n := s.last.Load()
	if n == nil || n.moment != m {
		n = &named{m, []string{strconv.FormatUint(m.Seq, 10)}, []string{m.Receipt}}
		s.last.Store(n)
	}
	h := w.Header()
	h[headerSeq], h[headerReceipt] = n.seq, n.receipt
}

// lesson is the reply to a learn request: the original app's, and what the
// fold made of each event of a batch.
type lesson struct {
	Status    string              `json:"status"`
	Predicted int64               `json:"predicted"`
	Learned   uint64              `json:"learned"`
	Results   []serve.TaughtEvent `json:"results,omitempty"`
}

// learn teaches an event, an array of them, or lines of either.
func (s *Server) learn(served *served, w http.ResponseWriter, r *http.Request) int {
	return s.body(w, r, func(b *body) int { return s.lines(served, w, r, "teach") }, func(b *body) int {
		t, err := ask(served, r, "teach", b, served.server.Teach)
		if err != nil {
			return s.failed(served, w, r, "teach", b.data, err)
		}
		h := w.Header()
		h[headerSeq], h[headerReceipt] = []string{strconv.FormatUint(t.Seq, 10)}, []string{t.Receipt}
		if t.Duplicate {
			h.Set(headerDuplicate, "true")
		}
		return sendValue(w, http.StatusOK, lesson{t.Status, t.Predicted, t.Learned, t.Results})
	})
}

// explain answers like predict, with probabilities and why.
func (s *Server) explain(served *served, w http.ResponseWriter, r *http.Request) int {
	return s.body(w, r, nil, func(b *body) int {
		e, err := ask(served, r, "explain", b, served.server.Explain)
		if err != nil {
			return s.failed(served, w, r, "explain", b.data, err)
		}
		return sendValue(w, http.StatusOK, e)
	})
}

// status is what this replica says of itself, and of the fleet it sees.
func (s *Server) status(served *served, w http.ResponseWriter, _ *http.Request) int {
	heard := served.Fleet()
	if heard == nil {
		heard = []fleet.Heartbeat{}
	}
	return sendValue(w, http.StatusOK, struct {
		fleet.Status
		Fleet []fleet.Heartbeat `json:"fleet"`
	}{served.server.Status(), heard})
}

// ask has the worker answer a request, by the handlers that answer over NATS.
// What they refuse because a number came as a text or a boolean is asked once
// more with the number that pydantic would take it for.
func ask[T any](served *served, r *http.Request, verb string, b *body,
	answer func(context.Context, serve.Request) (T, error),
) (T, error) {
	b.asked = true
	request := serve.Request{
		Data:   b.data,
		Header: func(name string) string { return header(r, name) },
		Names:  func() []string { return slices.Collect(maps.Keys(r.Header)) },
	}
	reply, err := answer(r.Context(), request)
	var refusal *serve.Refusal
	if errors.As(err, &refusal) && slices.ContainsFunc(refusal.Detail, notANumber) {
		if data, changed := lax(served.Spec(), verb, b.data); changed {
			request.Data = data
			reply, err = answer(r.Context(), request)
		}
	}
	// A worker that has not answered may still read.
	b.asked = err != nil && !errors.As(err, &refusal)
	return reply, err
}

// notANumber: a value of another type stands where a number should be.
func notANumber(p model.Problem) bool { return p.Type == "float_type" }

// header is a request's header by the name that it has over NATS.
func header(r *http.Request, name string) string {
	if name == "Nats-Msg-Id" {
		if id := r.Header.Get(headerID); id != "" {
			return id
		}
	}
	if name == "Lockstep-Include" && r.URL.RawQuery != "" {
		if include := r.URL.Query().Get("include"); include != "" {
			return include
		}
	}
	return r.Header.Get(name)
}

// body is a request's.
type body struct {
	data  []byte
	asked bool // a worker may still read it
}

var bodies = sync.Pool{New: func() any { return &body{data: make([]byte, 0, firstRead)} }}

// inMemory is how many bytes of bodies there are at present.
var inMemory atomic.Int64

// body reads a request's body, and has it answered: streamed if it is lines
// and that is not nil, else as a whole.
func (s *Server) body(w http.ResponseWriter, r *http.Request, streamed, whole func(*body) int) int {
	switch kind(r) {
	case "json":
	case "lines":
		if streamed != nil {
			return streamed(nil)
		}
		fallthrough
	default:
		return refuse(
			w, http.StatusUnsupportedMediaType,
			fmt.Sprintf(
				"Content-Type is %q: send application/json, or application/x-ndjson where lines are taken",
				r.Header.Get("Content-Type"),
			),
		)
	}
	b := bodies.Get().(*body)
	size, code := s.read(w, r, b)
	defer func() {
		inMemory.Add(-size)
		if !b.asked && cap(b.data) <= 64<<10 {
			b.data = b.data[:0]
			bodies.Put(b)
		}
	}()
	if code != 0 {
		return code
	}
	return whole(b)
}

// kind is what a request says that its body is: json, lines or neither. A body
// of no declared type is JSON, as FastAPI takes it. Media types are
// case-insensitive and may have parameters, none of which changes what JSON is
// (RFC 9110, 8.3.1; RFC 8259, 11).
func kind(r *http.Request) string {
	given := r.Header.Get("Content-Type")
	if given == "application/json" || given == "" {
		return "json"
	}
	media, _, err := mime.ParseMediaType(given)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return ""
	}
	switch media {
	case "application/json":
		return "json"
	case "application/x-ndjson",
		"application/ndjson", "application/jsonl", "application/jsonlines",
		"application/x-jsonlines":
		return "lines"
	}
	if name, ok := strings.CutPrefix(media, "application/"); ok && strings.HasSuffix(name, "+json") && name != "+json" {
		return "json"
	}
	return ""
}

// read reads a body; code is 0 unless it was refused. size is what it keeps
// in memory, to be given back.
func (s *Server) read(w http.ResponseWriter, r *http.Request, b *body) (size int64, code int) {
	control := http.NewResponseController(w)
	refused := func(code int, reason string) (int64, int) {
		w.Header().Set("Connection", "close") // the rest of it is not read
		return size, refuse(w, code, reason)
	}
	if r.ContentLength > maxBody {
		return refused(
			http.StatusRequestEntityTooLarge,
			fmt.Sprintf("the body has %d bytes, the most is %d", r.ContentLength, maxBody),
		)
	}
	control.SetReadDeadline(time.Now().Add(s.bodyTimeout))
	for {
		if len(b.data) == cap(b.data) {
			grown := max(2*cap(b.data), min(int(r.ContentLength)+1, 64<<10))
			b.data = append(make([]byte, 0, grown), b.data...)
		}
		if more := int64(cap(b.data)) - size; more > 0 {
			size += more
			if inMemory.Add(more) > maxBodies {
				return refused(
					http.StatusServiceUnavailable,
					"overloaded: the bodies of the requests in flight take too much memory; try again",
				)
			}
		}
		n, err := r.Body.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		switch {
		case len(b.data) > maxBody:
			return refused(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", maxBody))
		case errors.Is(err, io.EOF):
			control.SetReadDeadline(time.Time{})
			return size, 0
		case errors.Is(err, os.ErrDeadlineExceeded):
			return refused(http.StatusRequestTimeout, fmt.Sprintf("the body did not come within %s", s.bodyTimeout))
		case err != nil:
			return refused(http.StatusBadRequest, "There was an error parsing the body")
		}
	}
}

// first is the first byte of a text that is no white space, 0 if there is none.
func first(data []byte) byte {
	for _, b := range data {
		if b != ' ' && b != '\t' && b != '\n' && b != '\r' {
			return b
		}
	}
	return 0
}
