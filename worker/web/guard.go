package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard refuses requests that the listener is not meant for. A page of
// another site, shown by a browser that can reach this listener, must neither
// read from it nor write to it:
//
//   - a request from another origin is refused (CrossOriginProtection), with
//     or without a declared body type;
//   - without a token, a listener on a loopback address answers only to names
//     of this machine, so a name that was rebound to this address is refused.
//
// While the server drains, every answer closes its connection, so clients
// that keep connections alive move to another worker.
func (s *Server) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	token := sha256.Sum256([]byte(s.cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		h := w.Header()
		h["X-Content-Type-Options"] = noSniff
		if s.draining.Load() {
			h["Connection"] = closing
		}
		switch {
		case s.cfg.Token != "":
			given := sha256.Sum256([]byte(credential(r)))
			if subtle.ConstantTimeCompare(given[:], token[:]) != 1 && !probe {
				h["WWW-Authenticate"] = []string{
					`Bearer realm="lockstep"`, `Basic realm="lockstep: any user, the token as password"`,
				}
				refuse(w, http.StatusUnauthorized, "a token is required: Authorization: Bearer TOKEN")
				return
			}
		case s.local && !probe && !localHost(r.Host):
			refuse(w, http.StatusMisdirectedRequest, fmt.Sprintf("%q does not name this machine, "+
				"and this listener is for this machine alone: use localhost or 127.0.0.1, or set --http-token", r.Host))
			return
		}
		if crossOrigin.Check(r) != nil {
			refuse(w, http.StatusForbidden, "requests from other sites are refused")
			return
		}
		next.ServeHTTP(w, r)
	})
}

var closing = []string{"close"}

// credential is the token that a request carries: as a bearer token, or as
// the password that a browser asks its user for. The scheme's name is
// case-insensitive, and one or more spaces follow it (RFC 9110, 11.4).
func credential(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimLeft(token, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return token
	case strings.EqualFold(scheme, "Basic"):
		basic := http.Request{Header: http.Header{"Authorization": {"Basic " + token}}}
		_, password, _ := basic.BasicAuth()
		return password
	}
	return ""
}

// localHost reports whether a request's Host names this machine: as
// localhost, as a name below it, or by an address, which cannot be rebound.
// Host names are case-insensitive and may end in the root's dot (RFC 1034,
// 3.1); a port may follow; an IPv6 address stands in brackets (RFC 3986,
// 3.2.2). Only HTTP/1.0 clients send no Host, and no browser does.
func localHost(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		if name, ok = strings.CutSuffix(inner, "]"); !ok {
			return false
		}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if host == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}
