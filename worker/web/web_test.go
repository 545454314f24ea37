package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/serve"
)

// reason is an error's: each has one, as JSON.
func (r reply) reason(t *testing.T) string {
	t.Helper()
	text, ok := r.data["detail"].(string)
	if !ok || text == "" || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d without a reason: %s", r.code, r.body)
	}
	return text
}

// TestRefusals: what is no request to a verb at all.
func TestRefusals(t *testing.T) {
	f := newFleet(t, Config{})
	for _, c := range []struct {
		method, path, body string
		headers            []string
		code               int
		says               string
	}{
		{"GET", "/predict", "", nil, 405, "Method Not Allowed"},
		{"PUT", "/learn", "{}", nil, 405, "Method Not Allowed"},
		{"POST", "/status", "{}", nil, 405, "Method Not Allowed"},
		{"POST", "/metrics", "", nil, 405, "Method Not Allowed"},
		{"GET", "/nope", "", nil, 404, "Not Found"},
		{"POST", "/predict/more", "{}", nil, 404, "Not Found"},
		{"POST", "/predict", row(), []string{"Content-Type", "text/plain"}, 415, "application/json"},
		{"POST", "/learn", row(), []string{"Content-Type", "application/+json"}, 415, "application/json"},
		{"POST", "/learn", row(), []string{"Content-Type", "json"}, 415, "application/json"},
		{"POST", "/learn", row(), []string{"Content-Type", "application/jsonp"}, 415, "application/json"},
		{"POST", "/explain", row(), []string{"Content-Type", "application/x-ndjson"}, 415, "application/json"},
		{"POST", "/predict", row(), []string{"Origin", "http://elsewhere.example"}, 403, "other sites"},
		{"POST", "/predict", row(), []string{"Sec-Fetch-Site", "cross-site"}, 403, "other sites"},
		{"POST", "/predict", row(), []string{"Host", "elsewhere.example"}, 421, "elsewhere.example"},
		{"GET", "/status", "", []string{"Host", "elsewhere.example:80"}, 421, "elsewhere.example"},
		{"POST", "/predict", strings.Repeat(" ", maxBody+1), nil, 413, "bytes"},
		{"POST", "/predict", row("island", `"`+strings.Repeat("x", 100<<10)+`"`), nil, 413, "bytes"},
		{"POST", "/learn", event(row("island", `"`+strings.Repeat("x", 2<<20)+`"`), `"x"`), nil, 422, ""},
	} {
		got := f.do(c.method, c.path, c.body, c.headers...)
		if got.code != c.code {
			t.Errorf("%s %s %v: %d, want %d: %.200s", c.method, c.path, c.headers, got.code, c.code, got.body)
		} else if c.says != "" && !strings.Contains(got.reason(t), c.says) {
			t.Errorf("%s %s %v: %s", c.method, c.path, c.headers, got.body)
		}
		if c.code == 405 && got.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
}

// TestContentTypes: a body is JSON if its type is, in any case and with any
// parameters, and if it has none.
func TestContentTypes(t *testing.T) {
	f := newFleet(t, Config{})
	for _, kind := range []string{
		"", "application/json", "application/json; charset=utf-8", "Application/JSON", "APPLICATION/JSON;Charset=\"UTF-8\"",
		"application/json;", "application/json; charset", "application/vnd.api+json", "Application/Problem+JSON; q=1",
	} {
		if got := f.do("POST", "/predict", row(), "Content-Type", kind); got.code != 200 {
			t.Errorf("%q: got %d, want 200: %s", kind, got.code, got.body)
		}
	}
	for _, kind := range []string{"application/x-ndjson", "Application/X-NDJSON; charset=utf-8", "application/ndjson", "application/jsonl"} {
		got := f.do("POST", "/predict", row()+"\n"+row(), "Content-Type", kind)
		if got.code != 200 || strings.Count(got.body, "\n") != 2 {
			t.Errorf("%q: got %d %s, want two lines", kind, got.code, got.body)
		}
	}
	r, err := http.NewRequest("POST", f.door.URL()+"/predict", strings.NewReader(row()))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := f.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, answer); got.code != 200 {
		t.Errorf("no Content-Type at all: got %d, want 200: %s", got.code, got.body)
	}
}

// TestHosts: a listener for this machine answers to this machine's names, in
// any case, with the root's dot, with any port, and to addresses.
func TestHosts(t *testing.T) {
	f := newFleet(t, Config{})
	for _, c := range []struct {
		host string
		code int
	}{
		{"localhost", 200}, {"localhost:99", 200}, {"LocalHost", 200}, {"LOCALHOST:8080", 200}, {"localhost.", 200}, {"Localhost.:80", 200},
		{"a.localhost", 200}, {"A.LocalHost.", 200}, {"a.b.localhost:1", 200},
		{"127.0.0.1:1", 200}, {"127.0.0.1", 200}, {"127.0.0.1.", 200}, {"[::1]", 200}, {"[::1]:8080", 200}, {"[0:0:0:0:0:0:0:1]", 200}, {"[fe80::1%25lo]:1", 200},
		{"localhost..", 421}, {"xlocalhost", 421}, {"localhost.example", 421}, {"127.0.0.1.example", 421}, {"[localhost", 421}, {"elsewhere.example.", 421},
		{"[elsewhere.example]", 421},
	} {
		if got := f.do("GET", "/status", "", "Host", c.host); got.code != c.code {
			t.Errorf("Host %q: got %d, want %d: %.100s", c.host, got.code, c.code, got.body)
		}
	}
	conn, err := net.Dial("tcp", f.door.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET /status HTTP/1.0\r\n\r\n")
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 200 ") {
		t.Errorf("HTTP/1.0 without a Host: got %.100s %v, want 200", answer, err)
	}
}

// TestSlowClient: who does not send what was announced gets a 408.
func TestSlowClient(t *testing.T) {
	f := unready(t, Config{})
	f.door.bodyTimeout = 50 * time.Millisecond
	f.start(nil)
	for _, kind := range []string{"application/json", "application/x-ndjson"} {
		conn, err := net.Dial("tcp", f.door.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(
			conn, "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\n{",
			kind,
		)
		conn.SetDeadline(time.Now().Add(patience))
		answer, err := io.ReadAll(conn) // the door closes it
		if err != nil ||
			!strings.Contains(string(answer), "did not come within") && !strings.Contains(string(answer), `"code":408`) {
			t.Errorf("%s: %s %v", kind, answer, err)
		}
		if kind == "application/json" && !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
			t.Errorf("%s", answer)
		}
	}
}

// TestFlood: more than the door holds at once is refused, with a reason.
func TestFlood(t *testing.T) {
	f := unready(t, Config{})
	f.door.maxInFlight = 2
	f.start(nil)
	waiting := make(chan reply, 2)
	for range 2 {
		go func() {
			waiting <- f.do("POST", "/predict", row(), "Lockstep-Min-Seq", "2", "Lockstep-Timeout", "10s")
		}()
	}
	for f.door.inFlight.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	got := f.do("POST", "/predict", row())
	if got.code != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.reason(t), "overloaded") {
		t.Errorf("%d %v %s", got.code, got.header, got.body)
	}
	if got := f.do("GET", "/healthz", ""); got.code != 200 {
		t.Error("an overloaded door is alive: ", got.body)
	}
	f.ask("teach", event(row(), `"Gentoo"`))
	for range 2 {
		if got := <-waiting; got.code != 200 || got.header.Get(headerSeq) != "2" {
			t.Errorf("%d %s", got.code, got.body)
		}
	}
}

// TestToken: without it nothing but the probes; a browser can give it too.
func TestToken(t *testing.T) {
	f := newFleet(t, Config{Token: "s3cret"})
	for _, c := range []struct {
		given string
		code  int
	}{{"", 401}, {"Bearer s3cre", 401}, {"Bearer s3crets", 401}, {"Bearer ", 401}, {"s3cret", 401}, {"Bearer s3cret", 200}, {"Basic eDpzM2NyZXQ=", 200}, {"Basic eDp4", 401},
		{"bearer s3cret", 200}, {"BEARER s3cret", 200}, {"Bearer   s3cret", 200}, {"Bearers3cret", 401}, {"Bearer s3cret x", 401}, {"Bearer S3CRET", 401},
		{"basic eDpzM2NyZXQ=", 200}, {"BASIC  eDpzM2NyZXQ=", 200}, {"Basic", 401}, {"Basic !", 401}, {"Token s3cret", 401}, {"Digest s3cret", 401}} {
		for _, path := range []string{"/status", "/metrics", "/openapi.json", "/docs"} {
			got := f.do("GET", path, "", "Authorization", c.given)
			if got.code != c.code ||
				c.code == 401 && (got.header.Get("WWW-Authenticate") == "" || strings.Contains(got.body, "s3cret")) {
				t.Errorf("%s with %q: %d %.100s", path, c.given, got.code, got.body)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := f.do("GET", path, ""); got.code != 200 {
			t.Errorf("%s: %d", path, got.code)
		}
	}
	if got := f.do("GET", "/status", "", "Authorization", "Bearer s3cret", "Host", "model.example"); got.code != 200 {
		t.Error("behind a proxy: ", got.body)
	}
}

// TestTLS: a door with a certificate speaks TLS, and one without a good one
// does not open.
func TestTLS(t *testing.T) {
	cert, key, pool := certificate(t)
	f := unready(t, Config{TLSCert: cert, TLSKey: key})
	f.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	f.start(nil)
	if got := f.do("POST", "/predict", row()); got.code != 200 || !strings.HasPrefix(f.door.URL(), "https://") {
		t.Errorf("%s: %d %s", f.door.URL(), got.code, got.body)
	}
	for _, bad := range []Config{{Addr: ":0", TLSCert: cert}, {Addr: ":0", TLSCert: key, TLSKey: key}, {Addr: "8080"}, {Addr: ""}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

// TestBeforeTheWorker: the process is alive, and says what it waits for.
func TestBeforeTheWorker(t *testing.T) {
	f := unready(t, Config{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.door.Run(ctx) }()
	if got := f.do("GET", "/healthz", ""); got.code != 200 {
		t.Error(got.body)
	}
	for _, path := range []string{"/readyz", "/status", "/docs", "/openapi.json"} {
		if got := f.do("GET", path, ""); got.code != 503 || !strings.Contains(got.reason(t), "NATS") {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
	for _, path := range []string{"/predict", "/learn", "/explain"} {
		if got := f.do("POST", path, row()); got.code != 503 || !strings.Contains(got.reason(t), "NATS") {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
	if got := f.do("GET", "/metrics", ""); got.code != 200 || !strings.Contains(got.body, "lockstep_build_info") {
		t.Errorf("%d %s", got.code, got.body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWhatWasAcceptedIsAnswered: requests that wait, or are still being sent,
// when the worker is to stop get their answers, for the door closes before the worker does.
func TestWhatWasAcceptedIsAnswered(t *testing.T) {
	f := newFleet(t, Config{})
	waiting := make(chan reply, 1)
	go func() {
		waiting <- f.do("POST", "/predict", row(), "Lockstep-Min-Seq", "2", "Lockstep-Timeout", "10s")
	}()
	conn, err := net.Dial("tcp", f.door.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(
		conn,
		"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		len(row()), row()[:9],
	)
	f.eventually(func() bool { return f.door.worker.Load().server.Status().Parked == 1 && f.door.inFlight.Load() == 2 })
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	<-f.door.Closing()
	io.WriteString(conn, row()[9:]) // was accepted before, and is heard to the end
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		t.Errorf("%s %v", answer, err)
	}
	js, err := jetstream.New(f.nc.Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "penguins.learn", []byte(event(row(), `"Gentoo"`))); err != nil {
		t.Fatal(err)
	}
	if got := <-waiting; got.code != 200 || got.header.Get(headerSeq) != "2" || got.data["species"] != "Gentoo" {
		t.Errorf("%d %s", got.code, got.body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", f.door.Addr()); err == nil {
		t.Error("the door is still open")
	}
}

// TestDrainDelay: after the worker was asked to stop, the listener and NATS go
// on answering, /readyz says that it stops, and connections that are kept
// alive are closed with their next answer. Then it stops as ever.
func TestDrainDelay(t *testing.T) {
	f := unready(t, Config{DrainDelay: time.Minute})
	over, asked := make(chan time.Time), make(chan time.Duration, 1)
	f.door.after = func(d time.Duration) <-chan time.Time { asked <- d; return over }
	f.start(nil)
	if got := f.do("GET", "/readyz", ""); got.code != 200 || got.header.Get("Connection") != "" {
		t.Fatalf("before: %d %v", got.code, got.header)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	select {
	case d := <-asked:
		if d != time.Minute {
			t.Errorf("the delay: got %s, want a minute", d)
		}
	case err := <-stopped:
		t.Fatal("it stopped without a delay: ", err)
	}
	if got := f.do("GET", "/readyz", ""); got.code != 503 || !strings.Contains(got.reason(t), "stops") {
		t.Errorf("/readyz: got %d %s, want 503", got.code, got.body)
	}
	for _, path := range []string{"/predict", "/explain"} {
		if got := f.do("POST", path, row()); got.code != 200 {
			t.Errorf("%s: got %d, want 200: %s", path, got.code, got.body)
		}
	}
	if got := f.do("POST", "/learn", event(row(), `"Gentoo"`)); got.code != 200 {
		t.Errorf("/learn: got %d, want 200: %s", got.code, got.body)
	}
	if got := f.ask("predict", row()); got.data["species"] != "Gentoo" {
		t.Errorf("over NATS: got %s, want an answer", got.body)
	}
	text := f.do("GET", "/metrics", "").body
	if !strings.Contains(text, `lockstep_replica_ready{model="penguins",replica="web-1"} 0`) {
		t.Error("the metrics call it ready")
	}
	r, err := http.NewRequest("GET", f.door.URL()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := f.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, answer); got.code != 200 || !answer.Close {
		t.Errorf("/healthz: got %d, close %t, want 200 and Connection: close", got.code, answer.Close)
	}
	select {
	case <-f.door.Closing():
		t.Error("the listener closes before the delay is over")
	default:
	}
	close(over)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", f.door.Addr()); err == nil {
		t.Error("the listener is still open")
	}
}

// TestQuarantined: a replica that is not to be trusted is not ready, and says
// why on every path.
func TestQuarantined(t *testing.T) {
	f := unready(t, Config{})
	f.start(func(m *model.Model) *model.Model {
		if m.Seq() == 3 {
			for bit := 4000; ; bit++ {
				if flipped, ok := m.Flipped(bit); ok {
					return flipped
				}
			}
		}
		return m
	})
	ctx, cancel := context.WithCancel(context.Background())
	var ended []chan error
	for _, name := range []string{"good-1", "good-2"} {
		end := make(chan error, 1)
		ended = append(ended, end)
		go func() {
			end <- worker.Serve(ctx, worker.JoinConfig{Connect: bus.ConnectConfig{Server: f.url}, Name: name, Version: "1.2.3", Spec: model.DefaultSpec(), Logger: slog.New(slog.DiscardHandler)})
		}()
	}
	t.Cleanup(func() {
		cancel()
		for _, end := range ended {
			if err := <-end; err != nil {
				t.Error(err)
			}
		}
	})
	f.eventually(func() bool { return strings.Count(f.do("GET", "/status", "").body, `"votes":true`) == 3 })
	js, err := jetstream.New(f.nc.Conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"learn", "learn", "learn", "ctl.checkpoint"} {
		if _, err := js.Publish(t.Context(), "penguins."+subject, []byte(event(row(), `"Gentoo"`))); err != nil {
			t.Fatal(err)
		}
	}
	f.eventually(func() bool { return strings.Contains(f.do("GET", "/readyz", "").body, "quarantined") })
	if got := f.do("GET", "/readyz", ""); got.code != 503 || !strings.Contains(got.reason(t), "differ") {
		t.Errorf("%d %s", got.code, got.body)
	}
	if got := f.do("POST", "/predict", row()); got.code != 503 || !strings.Contains(got.reason(t), "quarantined") {
		t.Errorf("%d %s", got.code, got.body)
	}
	if got := f.do("GET", "/healthz", ""); got.code != 200 {
		t.Error(got.body)
	}
	if got := f.do("GET", "/metrics", ""); !strings.Contains(
		got.body, `lockstep_replica_quarantined{model="penguins",replica="web-1"} 1`,
	) {
		t.Error(got.body)
	}
}

// eventually waits until something holds.
func (f *rig) eventually(holds func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("it never came to that")
		}
	}
}

// TestLines: each line is answered with a line as it comes, good and bad.
func TestLines(t *testing.T) {
	f := newFleet(t, Config{})
	reader, writer := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", f.door.URL()+"/learn", reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set(headerID, "run-1")
	answers := make(chan *http.Response, 1)
	go func() {
		answer, err := f.http.Do(r)
		if err != nil {
			t.Error(err)
		}
		answers <- answer
	}()
	say := func(line string) {
		if _, err := io.WriteString(writer, line); err != nil {
			t.Error(err)
		}
	}
	say(event(row(), `"Gentoo"`) + "\n")
	answer := <-answers
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	hear := func() (out map[string]any) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("no more lines: ", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &out); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		return out
	}
	if got := hear(); got["learned"] != 1.0 { // before the next line is sent
		t.Error(got)
	}
	say("\n{}\n")
	if got := hear(); got["line"] != 3.0 || got["code"] != 422.0 || len(got["detail"].([]any)) != 2 {
		t.Error(got)
	}
	say(
		"[" + event(
			row(), `"Gentoo"`,
		) + "," + event(
			row("bill_length_mm", `"1"`), `"Adelie"`,
		) + "]\n" + event(
			row(), `"Adelie"`,
		),
	) // without an end
	writer.Close()
	if got := hear(); got["learned"] != 3.0 || len(got["results"].([]any)) != 2 {
		t.Error(got)
	}
	if got := hear(); got["learned"] != 4.0 {
		t.Error(got)
	}
	if lines.Scan() {
		t.Error("one line too many: ", lines.Text())
	}
	again := f.do(
		"POST", "/learn", event(row(), `"Gentoo"`)+"\n", "Content-Type", "application/jsonl", headerID, "run-1",
	)
	if again.data["duplicate"] != true || again.data["learned"] != 1.0 {
		t.Error("a run sent again learns again: ", again.body)
	}
	predicted := f.do("POST", "/predict", strings.Repeat(row()+"\n", 500), "Content-Type", "application/x-ndjson")
	if n := strings.Count(predicted.body, `{"species":"Gentoo"`); n != 500 {
		t.Errorf("%d of 500 predictions", n)
	}
	long := f.do("POST", "/predict", strings.Repeat("x", maxLine+1), "Content-Type", "application/x-ndjson")
	if long.data["code"] != 413.0 {
		t.Error(long.body)
	}
}

// TestRows: an array of rows gets an array, or all that is wrong with it.
func TestRows(t *testing.T) {
	f := newFleet(t, Config{})
	f.ask("teach", event(row(), `"Gentoo"`))
	got := f.do("POST", "/predict", repeat(1000, row("body_mass_g", `"1"`)))
	var all []map[string]any
	if err := json.Unmarshal([]byte(got.body), &all); err != nil || len(all) != 1000 ||
		all[999]["species"] != "Gentoo" ||
		got.header.Get(headerSeq) != "2" {
		t.Errorf("%d %v %.200s", got.code, err, got.body)
	}
	for body, want := range map[string]string{
		"[]":                      "too_short",
		repeat(1001, row()):       "too_long",
		"[" + row() + ",{}]":      `"loc":["body",1,"island"]`,
		"[" + row() + ",":         "json_invalid",
		"[" + row() + ",1]":       `"loc":["body",1]`,
		repeat(900, "{}"):         "missing",
		"[" + row() + "]" + row(): "json_invalid",
	} {
		if got := f.do("POST", "/predict", body); got.code != 422 || !strings.Contains(got.body, want) {
			t.Errorf("%.50s: %d %.200s", body, got.code, got.body)
		}
	}
}

// TestMetrics: the names are as Prometheus' own linter wants them, and the
// counts are right.
func TestMetrics(t *testing.T) {
	f := newFleet(t, Config{})
	f.ask("predict", row())
	f.ask("predict", "{}")
	for range 3 {
		f.do("POST", "/predict", row())
	}
	f.do("POST", "/predict", "{}")
	f.do("POST", "/learn", event(row(), `"Gentoo"`))
	f.ask("teach", event(row(), `"Gentoo"`))
	f.eventually(func() bool {
		return strings.Contains(
			f.do("GET", "/metrics", "").body,
			`lockstep_fleet_replicas{model="penguins",replica="web-1",state="ready"} 1`,
		)
	})
	text := f.do("GET", "/metrics", "").body
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	const labels = `model="penguins",replica="web-1"`
	for _, line := range []string{
		`lockstep_requests_total{code="200",door="http",` + labels + `,verb="predict"} 3`,
		`lockstep_requests_total{code="422",door="http",` + labels + `,verb="predict"} 1`,
		`lockstep_requests_total{code="200",door="nats",` + labels + `,verb="predict"} 1`,
		`lockstep_requests_total{code="422",door="nats",` + labels + `,verb="predict"} 1`,
		`lockstep_requests_total{code="200",door="nats",` + labels + `,verb="teach"} 1`,
		`lockstep_request_duration_seconds_count{door="http",` + labels + `,verb="predict"} 4`,
		`lockstep_request_duration_seconds_bucket{door="http",` + labels + `,verb="teach",le="+Inf"} 1`,
		`lockstep_events_total{` + labels + `,verdict="learned"} 2`,
		`lockstep_log_sequence{` + labels + `} 3`,
		`lockstep_log_lag_messages{` + labels + `} 0`,
		`lockstep_replica_state{` + labels + `,state="ready"} 1`,
		`lockstep_replica_ready{` + labels + `} 1`,
		`lockstep_model_accuracy_ratio{` + labels + `} 0.5`,
		`lockstep_fleet_predictions_total{` + labels + `} 4`,
		`lockstep_build_info{goversion=`, "go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("not there: %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestCountersNeverFall: what Prometheus takes for a counter never falls while
// the process lives, and what is constant is one value, also where the log is
// replaced by another and the replica counts its events from 0 again.
func TestCountersNeverFall(t *testing.T) {
	f := newFleet(t, Config{})
	series := func() map[string]float64 {
		out := map[string]float64{}
		kind := ""
		for _, line := range strings.Split(f.do("GET", "/metrics", "").body, "\n") {
			if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
				kind = rest
				continue
			}
			i := strings.LastIndexByte(line, ' ')
			rises := strings.HasSuffix(kind, " counter") || strings.HasSuffix(kind, " histogram")
			if i < 0 || line[0] == '#' || !rises && !strings.Contains(line, "start_time") {
				continue
			}
			v, err := strconv.ParseFloat(line[i+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			out[line[:i]] = v
		}
		return out
	}
	for range 5 {
		f.do("POST", "/learn", event(row(), `"Gentoo"`))
		f.do("POST", "/predict", row())
	}
	before := series()
	js, err := jetstream.New(f.nc.Conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"PENGUINS", "PENGUINS_COUNTS"} {
		if err := js.DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := bus.OpenLog(t.Context(), f.nc, bus.LogConfig{Model: "penguins", Genesis: func() []byte {
		return model.NewGenesis(model.DefaultSpec(), bus.NewID())
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "penguins.learn", []byte(event(row(), `"Gentoo"`))); err != nil {
		t.Fatal(err)
	}
	f.eventually(func() bool {
		s := f.door.worker.Load().server.Status()
		return s.State == "ready" && s.Learned == 1
	})
	after := series()
	for name, was := range before {
		if now, ok := after[name]; !ok || now < was || strings.Contains(name, "start_time") && now != was {
			t.Errorf("%s: was %v, now %v", name, was, now)
		}
	}
	const learned = `lockstep_events_total{model="penguins",replica="web-1",verdict="learned"}`
	const folds = `lockstep_replica_folds_total{model="penguins",replica="web-1"}`
	if before[learned] != 5 || after[learned] != 5 || after[folds] != before[folds]+1 {
		t.Errorf(
			"learned %v, then %v, want 5; folds %v, then %v, want one more", before[learned], after[learned],
			before[folds], after[folds],
		)
	}
}

// TestTrafficCountsByTheLists: a code or a time that no list has is counted
// all the same.
func TestTrafficCountsByTheLists(t *testing.T) {
	var traffic serve.Traffic
	for v := range serve.Verbs {
		for _, code := range append(slices.Clone(serve.Codes), 0, 200, 299) {
			traffic.Observe(v, code, time.Hour)
			traffic.Observe(v, code, time.Microsecond)
		}
		total := uint64(0)
		for i := range serve.Codes {
			total += traffic.Answers(v, i)
		}
		buckets, sum := traffic.Latencies(v)
		n := uint64(len(serve.Codes) + 3)
		if total != 2*n || buckets[0] != n || buckets[len(serve.Buckets)] != n || len(buckets) != len(serve.Buckets)+1 ||
			sum < time.Duration(n)*time.Hour {
			t.Errorf("%s: %d answers, %v in %v", serve.Verbs[v], total, buckets, sum)
		}
	}
	if n := testing.AllocsPerRun(100, func() { traffic.Observe(0, 422, time.Millisecond) }); n != 0 {
		t.Errorf("counting allocates %v times", n)
	}
}

// TestLogsHoldNothingOfARequest at the default level, whatever is sent.
func TestLogsHoldNothingOfARequest(t *testing.T) {
	const planted = "PLANTED"
	var said logs
	f := newFleet(t, Config{Logger: said.logger()})
	text := `"` + planted + `"`
	for _, body := range []string{
		row("island", text), event(row("sex", text), text), event(row("body_mass_g", text), text), event(row(), "[1,"+text), text, planted, "[" + text + "]",
		`{` + text + `:1}`, `{"attributes":{` + text + `:` + text + `},` + text + `:1}`,
	} {
		for _, path := range []string{"/predict", "/learn", "/explain", "/" + planted, "/predict?q=" + planted} {
			f.do("POST", path, body, headerID, planted, "X-"+planted, planted)
			f.do(
				"POST", path, body+"\n", "Content-Type", "application/x-ndjson", headerID,
				strings.Repeat(planted, 1000), "Lockstep-Min-Seq", planted,
			)
		}
		for _, verb := range []string{"predict", "teach", "explain", "status"} {
			f.ask(verb, body, "Nats-Msg-Id", planted+verb)
		}
		if err := f.nc.Publish("penguins.learn", []byte(body)); err != nil { // the fold rejects it
			t.Fatal(err)
		}
	}
	f.eventually(func() bool { return f.door.worker.Load().server.Status().Rejected > 5 })
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if log := said.String(); strings.Contains(log, planted) || !strings.Contains(log, `"state":"ready"`) {
		t.Error(log)
	}
}

// TestOpenAPI: the document has the spec's own fields and bounds, and its
// examples are answered.
func TestOpenAPI(t *testing.T) {
	f := newFleet(t, Config{})
	got := f.do("GET", "/openapi.json", "")
	var doc struct {
		Paths      map[string]any
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					Type      string
					MaxLength int
					AnyOf     []struct {
						Type             string
						Minimum, Maximum *float64
					}
				}
				Required []string
			}
		}
	}
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
		t.Fatal(err)
	}
	attributes := doc.Components.Schemas["Attributes"]
	mass := attributes.Properties["body_mass_g"].AnyOf
	if island := attributes.Properties["island"]; island.Type != "string" || island.MaxLength != 64 || len(attributes.Required) != 6 ||
		len(mass) != 2 || *mass[0].Maximum != 100000 ||
		*mass[0].Minimum != 0 ||
		mass[1].Type != "null" {
		t.Errorf("%+v", attributes)
	}
	for path := range doc.Paths {
		if method := map[bool]string{true: "POST", false: "GET"}[strings.Contains("/predict/learn/explain", path)]; f.do(
			method, path, "{}",
		).code == 404 {
			t.Errorf("%s is described, and not there", path)
		}
	}
}

// TestAnOpenDoorIsSaid: one that others reach, and that asks for no token,
// says so when it opens; others don't.
func TestAnOpenDoorIsSaid(t *testing.T) {
	for _, c := range []struct {
		config Config
		warns  bool
	}{{Config{Addr: "0.0.0.0:0"}, true}, {Config{Addr: "0.0.0.0:0", Token: "x"}, false}, {Config{Addr: "127.0.0.1:0"}, false}, {Config{Addr: ":0"}, false}, {Config{Addr: "[::1]:0"}, false}} {
		var said logs
		c.config.Logger = said.logger()
		door, err := New(c.config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- door.Run(ctx) }()
		for deadline := time.Now().Add(patience); !strings.Contains(said.String(), "the HTTP door is open"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(said.String())
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if warned := strings.Contains(said.String(), "has no authentication"); warned != c.warns {
			t.Errorf("%+v: %s", c.config, said.String())
		}
	}
}

// TestPlacesAreInTheOrderOfTheFields, whatever the order of the body.
func TestPlacesAreInTheOrderOfTheFields(t *testing.T) {
	f := newFleet(t, Config{})
	got := f.do(
		"POST", "/learn",
		`[`+event(
			row(), `"Gentoo"`,
		)+`,{"species":1,"id":2,"attributes":{"sex":3,"body_mass_g":[],"island":4,"island":5}},{}]`,
	)
	var where []string
	for _, d := range got.data["detail"].([]any) {
		where = append(where, strings.Trim(fmt.Sprint(d.(map[string]any)["loc"].([]any)[1:]), "[]"))
	}
	want := []string{
		"1 attributes island", "1 attributes island", "1 attributes island", "1 attributes bill_length_mm", "1 attributes bill_depth_mm",
		"1 attributes flipper_length_mm", "1 attributes body_mass_g", "1 attributes sex", "1 species", "1 id", "2 attributes", "2 species",
	}
	if fmt.Sprint(where) != fmt.Sprint(want) {
		t.Errorf("%q\nwant\n%q", where, want)
	}
}

// TestIncludeProba: a query asks for the probabilities, as the header does.
func TestIncludeProba(t *testing.T) {
	f := newFleet(t, Config{})
	f.do("POST", "/learn", event(row(), `"Gentoo"`))
	const want = `"proba":{"Gentoo":1}`
	if got := f.do("POST", "/predict?include=proba", row()); !strings.Contains(got.body, want) {
		t.Errorf("got %s", got.body)
	}
	if got := f.do("POST", "/predict", "["+row()+"]", "Lockstep-Include", "proba"); !strings.Contains(got.body, want) {
		t.Errorf("got %s", got.body)
	}
	if got := f.do("POST", "/predict?include=all", row()); got.code != 422 {
		t.Errorf("got %d %s", got.code, got.body)
	}
}
