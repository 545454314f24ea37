package web

import (
	"html"
	"math"
	"regexp"
	"strings"
	"testing"

	"lockstep/model"
	"lockstep/worker/replica"
)

// curlBodies are the requests that /docs shows, by their paths.
func (f *rig) curlBodies() map[string]string {
	f.t.Helper()
	docs := f.do("GET", "/docs", "")
	if docs.code != 200 || !strings.Contains(docs.body, "bill_length_mm") || !strings.Contains(docs.body, "0 to 1000") ||
		strings.Contains(docs.body, "src=") {
		f.t.Fatalf("%d %s", docs.code, docs.body)
	}
	if csp := docs.header.Get("Content-Security-Policy"); csp != policy {
		f.t.Errorf("its policy is %q, want the page's", csp)
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`curl http://[^/]+(/\w+) .* -d '(.*)'</code>`).FindAllStringSubmatch(docs.body, -1) {
		out[m[1]] = strings.ReplaceAll(html.UnescapeString(m[2]), `'\''`, `'`)
	}
	return out
}

// TestDocsShowRealValues: an example that is copied teaches nothing that is
// not of this model.
func TestDocsShowRealValues(t *testing.T) {
	f := newFleet(t, Config{})
	bodies := f.curlBodies()
	if got, want := bodies["/learn"], `"species":"<species>"`; !strings.Contains(got, want) {
		t.Errorf("before anything was learned the example is %s, want %s in it", got, want)
	}
	if got := f.do("POST", "/predict", bodies["/predict"]); got.code != 200 {
		t.Errorf("%s: %d %s", bodies["/predict"], got.code, got.body)
	}

	f.ask("teach", event(row(), `"Gentoo"`))
	f.ask("teach", "["+event(row(), `"Adelie"`)+","+event(row("island", `"O'Brien's <i>"`), `"Chinstrap"`)+"]")
	bodies = f.curlBodies()
	want := event(row("island", `"O'Brien's <i>"`), `"Chinstrap"`)
	if got := bodies["/learn"]; got != want {
		t.Errorf("the example is\n%s, want\n%s", got, want)
	}
	for _, path := range []string{"/predict", "/learn"} {
		if got := f.do("POST", path, bodies[path]); got.code != 200 {
			t.Errorf("%s %s: %d %s", path, bodies[path], got.code, got.body)
		}
	}
	if docs := f.do("GET", "/docs", ""); !strings.Contains(docs.body, "Biscoe, O&#39;Brien&#39;s &lt;i&gt;") {
		t.Errorf("the values that were seen are not shown, or as markup:\n%s", docs.body)
	}
}

// TestMadeExample: of a replica that began with a snapshot the log's events
// are not known, but its labels and values are.
func TestMadeExample(t *testing.T) {
	t.Parallel()
	spec := model.DefaultSpec()
	view := replica.View{Labels: []string{"Gentoo"}, Values: make([][]string, len(spec.Inputs))}
	view.Values[0] = []string{"Dream"}
	got := madeExample(spec, &view).event(spec)
	if want := `{"attributes":{"island":"Dream","bill_length_mm":1,`; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want it to begin with %s", got, want)
	}
	if want := `"sex":"<sex>"},"species":"Gentoo"}`; !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want it to end with %s", got, want)
	}
}

func TestNumberBounds(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for want, bounds := range map[string][2]float64{"0 to 9.5": {0, 9.5}, "-1 or more": {-1, inf}, "7 or less": {-inf, 7}, "any": {-inf, inf}} {
		if got := numberBounds(bounds[0], bounds[1]); got != want {
			t.Errorf("%v: got %q, want %q", bounds, got, want)
		}
	}
}
