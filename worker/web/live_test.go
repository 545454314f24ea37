package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"lockstep/worker/replica"
	"lockstep/worker/serve"
)

// gate is a reader of the page that takes each write only when it is let to.
type gate struct {
	header http.Header
	wrote  chan []byte // what is to be taken
	taken  chan error  // that it was
}

func newGate() *gate {
	return &gate{header: http.Header{}, wrote: make(chan []byte), taken: make(chan error)}
}

func (g *gate) Header() http.Header              { return g.header }
func (g *gate) WriteHeader(int)                  {}
func (g *gate) FlushError() error                { return nil }
func (g *gate) SetWriteDeadline(time.Time) error { return nil }
func (g *gate) Write(data []byte) (int, error) {
	g.wrote <- bytes.Clone(data)
	return len(data), <-g.taken
}

// heard are the events of a stream, by their names.
func heard(data []byte) map[string][]string {
	out := map[string][]string{}
	for _, m := range regexp.MustCompile(`event: (\w+)\ndata: (.*)\n\n`).FindAllSubmatch(data, -1) {
		out[string(m[1])] = append(out[string(m[1])], string(m[2]))
	}
	return out
}

// TestASlowReaderGetsTheLatest: who does not read has nothing kept for it but
// the newest state, and has it as soon as it reads on.
func TestASlowReaderGetsTheLatest(t *testing.T) {
	f := newFleet(t, Config{})
	f.ask("teach", event(row(), `"Gentoo"`))
	l := newLive(f.door)
	g := newGate()
	request := httptest.NewRequestWithContext(t.Context(), "GET", "/live", nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.stream(g, request)
	}()
	first := heard(<-g.wrote) // and not taken yet
	if len(first["hello"]) != 1 || len(first["points"]) != 1 || len(first["state"]) != 1 {
		t.Fatalf("%v", first)
	}
	moments := map[*moment]bool{}
	for n := range 20 {
		seq := uint64(f.ask("teach", event(row(), `"Adelie"`)).data["seq"].(float64))
		if seq != uint64(n+3) {
			t.Fatal(seq)
		}
		f.eventually(func() bool { // each is a state of its own
			now, _ := l.latest()
			moments[now] = true
			return strings.Contains(string(now.state), fmt.Sprintf(`"seq":%d,"learned"`, seq))
		})
	}
	if len(moments) < 20 {
		t.Errorf("only %d states", len(moments))
	}
	g.taken <- nil
	second := heard(<-g.wrote)
	if len(second["state"]) != 1 || len(second["hello"]) != 0 || len(second["points"]) != 1 ||
		!strings.Contains(second["state"][0], `"seq":22,"learned":21`) {
		t.Errorf("%v", second)
	}
	// The points go on where the reader's end: at the last that was of then.
	var points struct {
		First  int
		Points [][]float64
	}
	if err := json.Unmarshal([]byte(second["points"][0]), &points); err != nil || points.First != 1 ||
		points.Points[0][0] != 3 ||
		len(points.Points) != 21 ||
		points.Points[20][0] != 22 {
		t.Errorf("%+v %v", points, err)
	}
	g.taken <- os.ErrDeadlineExceeded // it is given up
	<-ended
	if l.readers != 0 {
		t.Errorf("%d readers", l.readers)
	}
}

// TestReadersShareOneState, that is computed once, and only for readers.
func TestReadersShareOneState(t *testing.T) {
	f := newFleet(t, Config{})
	l := newLive(f.door)
	if now, _ := l.latest(); now != nil {
		t.Error("computed for nobody")
	}
	var by *computer
	for n := range 50 {
		if !l.enter() {
			t.Fatal("refused")
		}
		if n == 0 {
			by = l.by
		}
	}
	now, changed := l.latest()
	f.ask("teach", event(row(), `"Gentoo"`))
	select {
	case <-changed:
	case <-time.After(patience):
		t.Fatal("nothing changed")
	}
	if next, _ := l.latest(); next == now || l.by != by {
		t.Error("not another state of the same computer")
	}
	for range 50 {
		l.exit()
	}
	// Full is full.
	l.readers = maxReaders
	w := httptest.NewRecorder()
	l.stream(w, httptest.NewRequestWithContext(t.Context(), "GET", "/live", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "open already") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	l.mu.Lock()
	l.readers, l.by = 0, nil
	l.mu.Unlock()
}

// TestThePageWaitsForItsWorker: it says so, and greets once there is one.
func TestThePageWaitsForItsWorker(t *testing.T) {
	f := unready(t, Config{})
	early := httptest.NewServer(f.door.Handler())
	defer early.Close()
	request, err := http.NewRequestWithContext(t.Context(), "GET", early.URL+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := f.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Error(kind)
	}
	var all []byte
	until := func(holds func(map[string][]string) bool) {
		t.Helper()
		for buf := make([]byte, 4096); !holds(heard(all)); {
			n, err := answer.Body.Read(buf)
			if all = append(all, buf[:n]...); err != nil {
				t.Fatalf("%v: %s", err, all)
			}
		}
	}
	until(func(e map[string][]string) bool {
		return len(e["state"]) == 1 && strings.Contains(e["state"][0], notAttached)
	})
	f.start(nil)
	until(func(e map[string][]string) bool { return len(e["hello"]) == 1 && len(e["state"]) > 1 })
	var hello struct {
		Model, Label string
		Inputs       []struct {
			Name             string
			Number, Nullable bool
			Min, Max         *float64
		}
	}
	if err := json.Unmarshal([]byte(heard(all)["hello"][0]), &hello); err != nil || hello.Model != "penguins" ||
		hello.Label != "species" ||
		len(hello.Inputs) != 6 ||
		!hello.Inputs[1].Nullable ||
		*hello.Inputs[1].Max != 1000 ||
		hello.Inputs[0].Max != nil {
		t.Errorf("%+v %v", hello, err)
	}
	if err := f.stop(); err != nil { // streams end with the door
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Error(err)
	}
}

// TestThePageLoadsNothingFromElsewhere: its policy forbids it, and it does
// not ask for it.
func TestThePageLoadsNothingFromElsewhere(t *testing.T) {
	f := newFleet(t, Config{})
	elsewhere := regexp.MustCompile(
		`(?i)(src|href|url\(|import)[\s=("']*(https?:|//)|<style|\sstyle=|\son[a-z]+=|innerHTML|insertAdjacentHTML|document\.write|eval\(`,
	)
	for path, kind := range map[string]string{"/": "text/html", "/page/page.css": "text/css", "/page/page.js": "text/javascript", "/page/icon.svg": "image/svg+xml"} {
		got := f.do("GET", path, "")
		if got.code != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), kind) {
			t.Errorf("%s: %d %s", path, got.code, got.header.Get("Content-Type"))
		}
		if found := elsewhere.FindString(got.body); found != "" {
			t.Errorf("%s has %s", path, found)
		}
		csp := got.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: %s is not in %s", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "http") {
			t.Error(csp)
		}
		if again := f.do("GET", path, "", "If-None-Match", got.header.Get("ETag")); again.code != 304 || again.body != "" {
			t.Errorf("%s again: %d", path, again.code)
		}
	}
	if got := f.do("POST", "/", "{}"); got.code != 404 && got.code != 405 {
		t.Error(got.code)
	}
	if got := f.do("GET", "/page/", ""); got.code != 404 {
		t.Error(got.code)
	}
}

// TestRowOfTheLog: an event comes back as it was stored, and what is none
// gets a reason.
func TestRowOfTheLog(t *testing.T) {
	f := newFleet(t, Config{})
	f.ask("teach", event(row(), `"Gentoo"`))
	f.ask("teach", "["+event(row(), `"Gentoo"`)+","+event(row("body_mass_g", "1"), `"Adelie"`)+"]")
	for query, want := range map[string]string{"seq=2": `"body_mass_g":4500`, "seq=3&index=1": `"body_mass_g":1`} {
		if got := f.do("GET", "/live/row?"+query, ""); got.code != 200 || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %s", query, got.code, got.body)
		}
	}
	for query, code := range map[string]int{"": 422, "seq=x": 422, "seq=2&index=x": 422, "seq=1": 404, "seq=99": 404, "seq=3": 404, "seq=3&index=2": 404, "seq=3&index=-5": 404, "seq=2&index=0": 404} {
		if got := f.do("GET", "/live/row?"+query, ""); got.code != code {
			t.Errorf("%s: %d %s", query, got.code, got.body)
		} else {
			got.reason(t)
		}
	}
}

// TestClasses: of many labels the most frequent are shown, and none is lost.
func TestClasses(t *testing.T) {
	t.Parallel()
	v := replica.View{}
	for class := range 40 {
		v.Labels = append(v.Labels, fmt.Sprint("l", class))
		v.Given = append(v.Given, uint64(class+41))
		confusion := make([]uint64, 41)
		for i := range confusion {
			confusion[i] = 1
		}
		confusion[class+1] += uint64(class)
		v.Confusion = append(v.Confusion, confusion)
	}
	c := classes(&v)
	if len(c.Shown) != maxClasses || c.Shown[0] != 28 || c.Shown[11] != 39 || c.Total != 40 {
		t.Errorf("%+v", c)
	}
	for i, row := range c.Confusion {
		sum := uint64(0)
		for _, n := range row {
			sum += n
		}
		if sum != c.Given[i] || row[0] != 1 || row[len(row)-1] != 28 {
			t.Errorf("%v of %d", row, c.Given[i])
		}
	}
	if data := encode(classes(&replica.View{})); strings.Contains(string(data), "null") {
		t.Errorf("%s", data)
	}
}

// TestQuantile: of latencies that are known by their buckets.
func TestQuantile(t *testing.T) {
	t.Parallel()
	buckets := make([]uint64, len(serve.Buckets)+1)
	if got := quantile(buckets, 0.5); got != 0 {
		t.Error(got)
	}
	buckets[1], buckets[4] = 90, 10 // 50 to 100 µs, 0.5 to 1 ms
	for share, want := range map[float64]float64{0.45: 75e-6, 0.9: 100e-6, 0.95: 750e-6, 1: 1e-3} {
		if got := quantile(buckets, share); got < want*0.999 || got > want*1.001 {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	buckets[len(serve.Buckets)] = 1000
	if got := quantile(buckets, 0.99); got != 10 {
		t.Error(got)
	}
}

// TestMeter: answers are counted between readings, a second apart.
func TestMeter(t *testing.T) {
	t.Parallel()
	var m meter
	var nats, web serve.Traffic
	now := time.Now()
	m.read(now, &nats, &web)
	for range 30 {
		nats.Observe(0, 200, time.Millisecond)
		web.Observe(1, 422, time.Millisecond)
		web.Observe(3, 200, time.Millisecond) // a status is no request
	}
	if got := m.read(now.Add(time.Second/2), &nats, &web); got.At != 0 {
		t.Errorf("%+v", got)
	}
	if got := m.read(now.Add(2*time.Second), &nats, &web); got.Rate != 30 || got.HTTP != 15 || got.Errors != 15 ||
		got.P50 == 0 {
		t.Errorf("%+v", got)
	}
	for i := range 3 * trafficSpan {
		m.read(now.Add(time.Duration(i+3)*time.Second), &nats, &web)
	}
	if m.told.Rate != 0 || m.told.P99 != 0 || len(m.reading) != trafficSpan+1 {
		t.Errorf("%+v of %d", m.told, len(m.reading))
	}
}
