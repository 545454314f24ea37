package web

import "net/http"

// routes is all that the door answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{\"status\":\"ok\"}\n")) })
	s.mountPage(mux)
	return mux
}

type metrics struct{}

func newMetrics(*Server) *metrics { return &metrics{} }
