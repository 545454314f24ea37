package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait of a test.
const patience = time.Minute

// rig is a server and one worker with an HTTP door.
type rig struct {
	t    testing.TB
	url  string // NATS
	nc   *bus.Conn
	door *Server
	http *http.Client
	stop func() error // the worker and its door
}

// newFleet starts one, and returns once the worker is ready.
func newFleet(t *testing.T, config Config) *rig {
	t.Helper()
	f := unready(t, config)
	f.start(nil)
	return f
}

// unready is a fleet whose worker is not started yet.
func unready(t *testing.T, config Config) *rig {
	t.Helper()
	t.Parallel()
	return sibling(t, config)
}

// newSibling is one more fleet, of a server of its own.
func newSibling(t *testing.T) *rig {
	t.Helper()
	f := sibling(t, Config{})
	f.start(nil)
	return f
}

func sibling(t testing.TB, config Config) *rig {
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
	f := &rig{
		t: t, url: server.ClientURL(),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: patience},
	}
	if f.nc, err = bus.Connect(t.Context(), bus.ConnectConfig{Server: f.url}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.nc.Close)
	t.Cleanup(f.http.CloseIdleConnections)
	if config.Addr == "" {
		config.Addr = "127.0.0.1:0"
	}
	config.Version = "1.2.3"
	if f.door, err = New(config); err != nil {
		t.Fatal(err)
	}
	if err := f.door.Listen(); err != nil {
		t.Fatal(err)
	}
	return f
}

// benchFleet is a fleet that has learned both sorts of penguin.
func benchFleet(b *testing.B) *rig {
	b.Helper()
	f := sibling(b, Config{})
	f.start(nil)
	f.ask("teach", "["+event(row(), `"Gentoo"`)+","+event(row("island", `"Dream"`, "sex", "null"), `"Adelie"`)+"]")
	return f
}

func (f *rig) start(tamper func(*model.Model) *model.Model) {
	f.t.Helper()
	ready := make(chan struct{})
	var once sync.Once
	logger := f.door.cfg.Logger
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, worker.JoinConfig{
			Connect: bus.ConnectConfig{Server: f.url}, Name: "web-1", Version: "1.2.3", Spec: model.DefaultSpec(), Logger: logger, Tamper: tamper,
			OnState: func(s fleet.State) {
				if s == fleet.Ready {
					once.Do(func() { close(ready) })
				}
			},
		}, f.door)
	}()
	f.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	f.t.Cleanup(func() {
		if err := f.stop(); err != nil {
			f.t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		f.t.Fatal("the worker ended: ", err)
	case <-time.After(patience):
		f.t.Fatal("the worker is not ready")
	}
}

// reply is what a door said.
type reply struct {
	code   int
	header http.Header
	body   string
	data   map[string]any // the body, if it is an object
}

// do sends an HTTP request; headers come as name, value, …
func (f *rig) do(method, path, body string, headers ...string) reply {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.door.URL()+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	answer, err := f.http.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return read(f.t, answer)
}

func read(t testing.TB, answer *http.Response) reply {
	t.Helper()
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := reply{code: answer.StatusCode, header: answer.Header, body: string(data)}
	_ = json.Unmarshal(data, &out.data) // an array stays text
	return out
}

// ask sends a request over NATS.
func (f *rig) ask(verb, body string, headers ...string) reply {
	f.t.Helper()
	header := nats.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	answer, err := bus.Ask(ctx, f.nc, "penguins."+verb, []byte(body), header)
	out := reply{code: 200}
	var remote *bus.RemoteError
	switch {
	case err == nil:
		out.body = string(answer.Data)
	case errors.As(err, &remote):
		out.code, out.body = remote.Code, string(remote.Body)
	default:
		f.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.body), &out.data); err != nil {
		f.t.Fatalf("%s: %v", out.body, err)
	}
	return out
}

// logs is what a run logged.
type logs struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }
