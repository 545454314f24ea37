package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHealth: what a door says becomes an exit code.
func TestHealth(t *testing.T) {
	t.Parallel()
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, `{"state":"replaying"}`)
	}))
	gone := httptest.NewServer(nil)
	gone.Close()
	t.Cleanup(door.Close)
	for _, c := range []struct {
		url  string
		code int
		says string
	}{
		{door.URL + "/healthz", 0, "replaying"},
		{door.URL + "/readyz", exitFailed, "503"},
		{gone.URL, exitUnreachable, "refused"},
		{"readyz", exitUsage, "is no URL"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), []string{"health", c.url}, nil, &out, &out)
		if exitCode(err) != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("health %s: exit code %d, want %d; it says %q, want %q", c.url, exitCode(err), c.code, out.String(), c.says)
		}
	}
}
