package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lockstep/worker"
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

// guard lets in whom the door is for. A page of another site that a browser
// on this machine shows must neither read from the door nor write to it: a
// POST from another origin is refused (CrossOriginProtection), bodies must be
// declared as JSON, which another origin cannot do unasked, and a name that
// was rebound to this address is not the door's.
func (s *Server) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	token := sha256.Sum256([]byte(s.cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		h := w.Header()
		h["X-Content-Type-Options"] = noSniff
		switch {
		case s.cfg.Token != "":
			given := sha256.Sum256([]byte(credential(r)))
			if subtle.ConstantTimeCompare(given[:], token[:]) != 1 && !probe {
				h["WWW-Authenticate"] = []string{`Bearer realm="lockstep"`, `Basic realm="lockstep: any user, the token as password"`}
				refuse(w, http.StatusUnauthorized, "this door wants its token: Authorization: Bearer TOKEN")
				return
			}
		case !probe && s.rebound(r):
			refuse(w, http.StatusMisdirectedRequest, fmt.Sprintf("%q is no name of this door, which is for this machine alone: use localhost or 127.0.0.1, or give the door an --http-token", r.Host))
			return
		}
		if crossOrigin.Check(r) != nil {
			refuse(w, http.StatusForbidden, "requests from other sites are refused")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// credential is the token that a request carries: as a bearer, or as the
// password that a browser asks its user for.
func credential(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	_, password, _ := r.BasicAuth()
	return password
}

// rebound tells whether a request to a door that is for this machine alone
// names another host. An address cannot be rebound.
func (s *Server) rebound(r *http.Request) bool {
	if !s.local || r.Host == s.addr {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return false
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil
}

// door wraps a verb: it bounds how many requests are in flight, finds the
// worker, and counts the answers.
func (s *Server) door(verb string, answer func(*served, http.ResponseWriter, *http.Request) (code int)) http.HandlerFunc {
	place := slices.Index(worker.Verbs, verb)
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		code := 0
		waiting := s.inFlight.Add(1)
		defer s.inFlight.Add(-1)
		switch served := s.worker.Load(); {
		case waiting > s.maxInFlight:
			code = refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("overloaded: %d requests are in flight; try again", waiting))
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
	w.Write(body) // whoever went away needs no answer
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
	send(w, http.StatusOK, []byte("{\"status\":\"ready\"}"))
}

func (s *Server) unready() string {
	served := s.worker.Load()
	if served == nil {
		return notAttached
	}
	return served.Unready()
}
