package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"
)

//go:embed page
var pageFiles embed.FS

// policy lets the page load nothing but its own files, run no script that is
// not one of them, and make no markup out of text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// pageParts are the page's files, by their paths.
var pageParts = map[string]struct{ file, kind string }{
	"/{$}":           {"page.html", "text/html; charset=utf-8"},
	"/page/page.css": {"page.css", "text/css; charset=utf-8"},
	"/page/page.js":  {"page.js", "text/javascript; charset=utf-8"},
	"/page/icon.svg": {"icon.svg", "image/svg+xml"},
}

// pageHash changes when a file does: a page that was loaded before loads
// itself again.
var pageHash = func() string {
	all := sha256.New()
	for _, file := range []string{"page.html", "page.css", "page.js", "icon.svg"} {
		data, err := pageFiles.ReadFile("page/" + file)
		if err != nil {
			panic(err) // it is embedded
		}
		all.Write(data)
	}
	return hex.EncodeToString(all.Sum(nil)[:8])
}()

// mountPage adds the live page, its files, and what it is fed from.
func (s *Server) mountPage(mux *http.ServeMux) {
	for path, part := range pageParts {
		data, err := pageFiles.ReadFile("page/" + part.file)
		if err != nil {
			panic(err) // it is embedded
		}
		tag := fmt.Sprintf("%q", pageHash)
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Content-Type", part.kind)
			h.Set("Content-Security-Policy", policy)
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Cache-Control", "no-cache")
			h.Set("ETag", tag)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		})
	}
	l := newLive(s)
	mux.HandleFunc("GET /live", l.stream)
	mux.HandleFunc("GET /live/row", l.row)
}
