package web

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"lockstep/worker/serve"
)

// routes is all that the door answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	on := func(path string, methods []string, handler http.HandlerFunc) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if !slices.Contains(methods, r.Method) {
				w.Header().Set("Allow", strings.Join(methods, ", "))
				refuse(w, http.StatusMethodNotAllowed, "Method Not Allowed")
				return
			}
			handler(w, r)
		})
	}
	post, get := []string{"POST"}, []string{"GET", "HEAD"}
	on("/predict", post, s.door("predict", s.predict))
	on("/learn", post, s.door("teach", s.learn))
	on("/explain", post, s.door("explain", s.explain))
	on("/status", get, s.door("status", s.status))
	on("/healthz", get, s.healthz)
	on("/readyz", get, s.readyz)
	on("/metrics", get, s.metrics.handler.ServeHTTP)
	on("/openapi.json", get, s.spec)
	on("/docs", get, s.docs)
	s.mountPage(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "Not Found") })
	return s.guard(mux)
}

// door wraps a verb: it bounds how many requests are in flight, finds the
// worker, and counts the answers.
func (s *Server) door(
	verb string,
	answer func(*served, http.ResponseWriter, *http.Request) (code int),
) http.HandlerFunc {
	place := slices.Index(serve.Verbs, verb)
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		code := 0
		waiting := s.inFlight.Add(1)
		defer s.inFlight.Add(-1)
		switch served := s.worker.Load(); {
		case waiting > s.maxInFlight:
			code = refuse(
				w, http.StatusServiceUnavailable,
				fmt.Sprintf("overloaded: %d requests are in flight; try again", waiting),
			)
		case served == nil:
			code = refuse(w, http.StatusServiceUnavailable, notAttached)
		default:
			code = answer(served, w, r)
		}
		took := time.Since(began)
		s.metrics.http.Observe(place, code, took)
		if s.log.Enabled(r.Context(), slog.LevelDebug) {
			s.log.Debug("request", "verb", verb, "code", code, "took", took.String(), "from", r.RemoteAddr)
		}
	}
}

const notAttached = "this worker has not reached NATS yet"

var (
	jsonType = []string{"application/json"}
	noSniff  = []string{"nosniff"}
	soon     = []string{"1"}
)

// refuse answers with an error in FastAPI's shape.
func refuse(w http.ResponseWriter, code int, reason string) int {
	body, _ := json.Marshal(map[string]string{"detail": reason}) // texts always marshal
	return send(w, code, body)
}

// send answers with a JSON body.
func send(w http.ResponseWriter, code int, body []byte) int {
	h := w.Header()
	h["Content-Type"] = jsonType
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		h["Retry-After"] = soon
	}
	if code != http.StatusOK {
		w.WriteHeader(code)
	}
	w.Write(body) // anyone who went away needs no answer
	return code
}

func sendValue(w http.ResponseWriter, code int, v any) int {
	body, err := json.Marshal(v)
	if err != nil { // a number that is not finite
		return refuse(w, http.StatusInternalServerError, "the reply could not be written: "+err.Error())
	}
	return send(w, code, body)
}

// healthz: the process runs.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	send(w, http.StatusOK, []byte("{\"status\":\"ok\"}"))
}

// readyz: the replica has caught up, is not quarantined, and answers.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if reason := s.unready(); reason != "" {
		sendValue(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "detail": reason})
		return
	}
	ready := map[string]any{"status": "ready"}
	if behind := s.worker.Load().Lag(); behind > 0 {
		ready["lag"] = behind
	}
	sendValue(w, http.StatusOK, ready)
}

// unready is why requests should go to another worker; empty if this one
// answers.
func (s *Server) unready() string {
	served := s.worker.Load()
	switch {
	case s.draining.Load():
		return "this worker stops: ask another"
	case served == nil:
		return notAttached
	}
	return served.Unready()
}
