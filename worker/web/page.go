package web

import "net/http"

// mountPage adds the live page.
func (s *Server) mountPage(*http.ServeMux) {}
