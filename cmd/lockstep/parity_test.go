//go:build e2e

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/bus/broker"
)

// differences are all that a client of the FastAPI app can notice. The README
// quotes them; a request that shows each proves that it is still so.
var differences = []struct {
	says  string
	shown []call
	peer  int // the codes that both answer with; 0 is any
	ours  int
	same  func(body any) // what is left out before the bodies are compared; nil: they are not
}{
	{
		says: "A body that is no JSON gets the same 422 `json_invalid`; the position and `ctx.error` are in our words.",
		peer: 422, ours: 422, same: forgetSyntax,
		shown: []call{
			{
				body: `{`,
			}, {body: `x`}, {body: `  `}, {body: `{"a":1,}`}, {body: `{"a" 1}`}, {body: `{'a':1}`}, {body: `{"a":01}`}, {body: `{"a":tru}`}, {body: "{\"a\":\"\n\"}"},
			{body: `{"a":"\q"}`}, {body: `{"a":"x`}, {body: `{} {}`}, {path: "/learn", body: `{"attributes":`},
		},
	}, {
		says: "`NaN`, `Infinity` and numbers that overflow, as such or as texts, are refused with 422; there they are taken, and learning one spoils the model for good.",
		peer: 200, ours: 422,
		shown: []call{
			{
				body: peerRow("body_mass_g", "NaN"),
			}, {body: peerRow("body_mass_g", "-Infinity")}, {body: peerRow("body_mass_g", "1e999")}, {body: peerRow("body_mass_g", `"nan"`)},
			{body: peerRow("body_mass_g", `"-Infinity"`)},
		},
	}, {
		says: "Numbers and texts out of the spec's bounds are refused with 422 (`greater_than_equal`, `less_than_equal`, `string_too_long`); there they are taken, and learning a negative one breaks the model.",
		peer: 200, ours: 422,
		shown: []call{
			{
				body: peerRow("body_mass_g", "-1"),
			}, {body: peerRow("bill_length_mm", "1e6")}, {body: peerRow("bill_length_mm", `"-5"`)}, {body: peerRow("island", `"`+strings.Repeat("x", 65)+`"`)},
		},
	}, {
		says:  "A key given twice is refused with 422 (`duplicate_key`); there the last one counts.",
		shown: []call{{body: `{"island":"Dream",` + peerRow("", "")[1:]}}, peer: 200, ours: 422,
	}, {
		says:  "Half of a surrogate pair is refused with 422; there it is taken.",
		shown: []call{{body: peerRow("island", `"\ud800"`)}}, peer: 200, ours: 422,
	}, {
		says:  "Bytes that are not UTF-8 get a 422 with their place; there a 400.",
		shown: []call{{body: peerRow("island", "\"\xff\"")}}, peer: 400, ours: 422,
	}, {
		says:  "A byte order mark, UTF-16 and UTF-32 are refused with 422; there they are taken.",
		shown: []call{{body: "\ufeff" + peerRow("", "")}}, peer: 200, ours: 422,
	}, {
		says: "More than 32 arrays and objects in each other, or 256 keys in one, are refused with 422.",
		shown: []call{
			{body: `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "," + peerRow("", "")[1:]},
		}, peer: 200, ours: 422,
	}, {
		says: "An array is a batch; there it is refused with 422.",
		shown: []call{
			{body: "[" + peerRow("", "") + "]"},
			{path: "/learn", body: "[" + peerEvent(peerRow("", ""), `"Adelie"`) + "]"},
		}, peer: 422, ours: 200,
	}, {
		says: "A body that is declared as something else than JSON gets a 415 that says so; there a 422 that calls it a text.",
		shown: []call{
			{body: peerRow("", ""), kind: "text/plain"},
			{body: peerRow("", ""), kind: "application/x-www-form-urlencoded"},
		}, peer: 422, ours: 415,
	}, {
		says:  "JSON lines are taken; there they are a text too.",
		shown: []call{{body: peerRow("", ""), kind: "application/x-ndjson"}}, peer: 422, ours: 200,
	}, {
		says: "A body has at most 8 MiB, a row about 64 KiB; more gets a 413.",
		shown: []call{
			{body: strings.Repeat(" ", 9<<20) + peerRow("", "")},
			{body: peerRow("", "") + strings.Repeat(" ", 100<<10)},
		}, peer: 200, ours: 413,
	}, {
		says:  "A path with a slash at its end is not found (404); there it is redirected.",
		shown: []call{{path: "/predict/", body: peerRow("", "")}}, peer: 307, ours: 404,
	}, {
		says:  "A wrong value of more than 4 KiB is shown as its first 1 KiB, with … at its end.",
		shown: []call{{body: peerRow("body_mass_g", `"`+strings.Repeat("x", 5000)+`"`)}}, peer: 422, ours: 422,
	}, {
		says: "Requests that a browser sends for a page of another site, or to a name that is not this machine's, are " +
			"refused (403, 421).",
		shown: []call{
			{body: peerRow("", ""), header: [2]string{"Origin", "http://elsewhere.example"}},
		}, peer: 200, ours: 403,
	},
}

// alike is refused by both with the same words.
var alike = []call{
	{
		body: ``,
	}, {body: `null`}, {body: `"x"`}, {body: `5`}, {body: `true`}, {body: `{}`}, {body: `{"a":1}`}, {body: `{"island":"x"}`},
	{
		body: peerRow("island", "1"),
	}, {body: peerRow("island", "null")}, {body: peerRow("island", `["x"]`)}, {body: peerRow("island", "")}, {body: peerRow("sex", "")},
	{
		body: peerRow("sex", "true"),
	}, {body: peerRow("sex", "{}")}, {body: peerRow("body_mass_g", `"abc"`)}, {body: peerRow("body_mass_g", `""`)}, {body: peerRow("body_mass_g", `"1__0"`)},
	{
		body: peerRow("body_mass_g", `"0x10"`),
	}, {body: peerRow("body_mass_g", `"1,5"`)}, {body: peerRow("body_mass_g", `"٣"`)}, {body: peerRow("body_mass_g", "[]")},
	{
		body: peerRow("body_mass_g", `{"a":[1,"ü",null]}`),
	}, {body: peerRow("body_mass_g", "")}, {body: `{"island":1,"sex":2,"bill_length_mm":"x","body_mass_g":[]}`},
	{
		body: `{"sex":"x","Island":"x"}`,
	}, {path: "/learn", body: ``}, {path: "/learn", body: `{}`}, {path: "/learn", body: `null`},
	{
		path: "/learn", body: peerEvent("null", "null"),
	}, {path: "/learn", body: peerEvent("[1]", "1")}, {path: "/learn", body: peerEvent("{}", `"Adelie"`)},
	{
		path: "/learn", body: `{"species":1,"attributes":{"sex":5}}`,
	}, {path: "/learn", body: `{"species":"Adelie"}`}, {path: "/learn", body: `{"attributes":` + peerRow("", "") + `}`},
	{
		path: "/learn", body: peerEvent(peerRow("body_mass_g", `"many"`), `["Adelie"]`),
	}, {path: "/learn", body: peerRow("", "")},
	{
		method: "GET", path: "/predict",
	}, {method: "PUT", path: "/learn", body: "{}"}, {method: "DELETE", path: "/predict"}, {path: "/nope", body: "{}"}, {method: "GET", path: "/predict/more"},
}

// taken is what both take though it looks odd.
var taken = []call{
	{
		body: peerRow("body_mass_g", `" 39.1 "`),
	}, {body: peerRow("body_mass_g", `"1e3"`)}, {body: peerRow("body_mass_g", `"1_000"`)}, {body: peerRow("body_mass_g", "true")},
	{
		body: peerRow("body_mass_g", "false"),
	}, {body: peerRow("body_mass_g", `"+5."`)}, {body: peerRow("body_mass_g", "-0.0")}, {body: peerRow("island", `""`)}, {body: peerRow("island", `"Mars 🐧"`)},
	{
		body: `{"more":[{}],` + peerRow("", "")[1:],
	}, {body: peerRow("", ""), kind: "application/json; charset=utf-8"}, {body: peerRow("", ""), kind: "application/vnd.api+json"},
	{path: "/learn", body: peerEvent(peerRow("body_mass_g", `"4_500.0"`, "bill_depth_mm", "true"), `"Gentoo"`)},
}

// call is one request to both.
type call struct {
	method, path string // POST and /predict if not given
	body         string
	kind         string // the Content-Type, if another
	header       [2]string
}

// peerRow is a good row with some attributes replaced, or left out.
func peerRow(replaced ...string) string {
	fields := []string{
		"island", `"Biscoe"`, "bill_length_mm", "46.1", "bill_depth_mm", "13.2", "flipper_length_mm", "211",
		"body_mass_g", "4500", "sex", `"female"`,
	}
	var parts []string
	for i := 0; i < len(fields); i += 2 {
		value := fields[i+1]
		for j := 0; j+1 < len(replaced); j += 2 {
			if replaced[j] == fields[i] {
				value = replaced[j+1]
			}
		}
		if value != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", fields[i], value))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func peerEvent(attributes, species string) string {
	return fmt.Sprintf(`{"attributes":%s,"species":%s}`, attributes, species)
}

// TestParity sends the same requests to the FastAPI app that Lockstep
// replaces and to Lockstep: the same bodies come back, field for field, save
// for the listed differences. It wants a Python with the app's requirements
// in LOCKSTEP_PEER_PYTHON; .ci/parity makes one.
func TestParity(t *testing.T) {
	readme, err := os.ReadFile("../../worker/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		if !bytes.Contains(readme, []byte("- "+d.says+"\n")) {
			t.Errorf("worker/README.md does not say: %s", d.says)
		}
	}
	python := os.Getenv("LOCKSTEP_PEER_PYTHON")
	if python == "" {
		t.Skip("LOCKSTEP_PEER_PYTHON is not set: run .ci/parity")
	}
	peer := startPeer(t, python)
	ours := startLockstep(t)
	p := &pair{t: t, peer: peer, ours: ours, client: &http.Client{
		Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}

	events := penguinEvents(t)
	n := len(events)
	for _, event := range events {
		var learn struct {
			Attributes json.RawMessage `json:"attributes"`
		}
		if err := json.Unmarshal(event, &learn); err != nil {
			t.Fatal(err)
		}
		p.alike(call{body: string(learn.Attributes)}, 200)
		p.alike(call{path: "/learn", body: string(event)}, 200)
	}
	for _, c := range alike {
		p.alike(c, 0)
	}
	for _, c := range taken {
		p.alike(c, 200)
	}
	shown := 0
	for _, d := range differences {
		for _, c := range d.shown {
			there, here := p.both(c)
			shown++
			switch {
			case there.code != d.peer || here.code != d.ours:
				t.Errorf("%s\n%s\nthere %d %.300s\nhere %d %.300s", d.says, c, there.code, there.raw, here.code, here.raw)
			case d.same == nil:
			case there.code == 422:
				d.same(there.body)
				d.same(here.body)
				if !reflect.DeepEqual(there.body, here.body) {
					t.Errorf("%s\n%s\nthere %s\nhere %s", d.says, c, there.raw, here.raw)
				}
			}
		}
	}
	if len(alike) < 30 {
		t.Errorf("%d bad requests", len(alike))
	}
	t.Logf(
		"the same bodies for %d predicts, %d learns, %d bad and %d odd requests; %d differences shown by %d requests",
		n, n, len(alike), len(taken), len(differences), shown,
	)
}

func (c call) String() string { return fmt.Sprintf("%s %s %.200s", c.method, c.path, c.body) }

// pair is the two that are compared.
type pair struct {
	t          *testing.T
	peer, ours string
	client     *http.Client
}

type answered struct {
	code  int
	raw   string
	body  any
	allow string
	kind  string
}

func (p *pair) both(c call) (there, here answered) {
	p.t.Helper()
	return p.send(p.peer, c), p.send(p.ours, c)
}

// alike sends a request to both, whose answers must be the same; code is
// theirs, or 0 for any error.
func (p *pair) alike(c call, code int) {
	p.t.Helper()
	there, here := p.both(c)
	if there.code != here.code || code != 0 && here.code != code || code == 0 && here.code < 400 ||
		!reflect.DeepEqual(there.body, here.body) || there.allow != here.allow || there.kind != here.kind {
		p.t.Errorf(
			"%s\nthere %d %s %s\nhere  %d %s %s", c, there.code, there.allow, there.raw, here.code, here.allow,
			here.raw,
		)
	}
}

func (p *pair) send(url string, c call) answered {
	p.t.Helper()
	method, path, kind := c.method, c.path, c.kind
	if method == "" {
		method = "POST"
	}
	if path == "" {
		path = "/predict"
	}
	if kind == "" {
		kind = "application/json"
	}
	r, err := http.NewRequestWithContext(p.t.Context(), method, url+path, strings.NewReader(c.body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	if c.header[0] != "" {
		r.Header.Set(c.header[0], c.header[1])
	}
	response, err := p.client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	a := answered{
		code: response.StatusCode, raw: string(data), allow: response.Header.Get("Allow"),
		kind: response.Header.Get("Content-Type"),
	}
	if err := json.Unmarshal(data, &a.body); err != nil {
		a.body = a.raw
	}
	return a
}

// forgetSyntax leaves out where and how a body is no JSON.
func forgetSyntax(body any) {
	problem, ok := body.(map[string]any)["detail"].([]any)[0].(map[string]any)
	if ctx, known := problem["ctx"].(map[string]any); ok && known {
		problem["loc"].([]any)[1] = nil
		ctx["error"] = nil
	}
}

// startPeer runs the FastAPI app in a folder of its own, and returns its URL.
func startPeer(t *testing.T, python string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "peers", "fastapi"))); err != nil {
		t.Fatal(err)
	}
	p, found, err := startProcess(
		dir, os.Environ(), `running on (http://[0-9.:]+)`, python, "-m", "uvicorn", "app:app", "--port", "0",
	)
	if p != nil {
		t.Cleanup(func() { p.stop(syscall.SIGKILL) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return found[1]
}

// startLockstep runs a server and one worker with an HTTP door on an empty
// log, as the command does, and returns the door's URL.
func startLockstep(t *testing.T) string {
	t.Helper()
	server, err := broker.Start(t.Context(), broker.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	out := &output{}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"worker", "-s", server.ClientURL(), "--name", "parity", "--http", "127.0.0.1:0"}, strings.NewReader(""), io.Discard, out)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	address := regexp.MustCompile(`"url":"(http://[0-9.:]+)"`)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if found := address.FindStringSubmatch(out.String()); found != nil {
			if r, err := http.Get(found[1] + "/readyz"); err == nil {
				r.Body.Close()
				if r.StatusCode == http.StatusOK {
					return found[1]
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the worker is not ready: ", out.String())
		}
	}
}

// output is what a command has said so far.
type output struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}
