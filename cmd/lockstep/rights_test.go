package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/fleet"
)

// TestADeniedCallIsNamed: the program says which right is missing and ends,
// whatever is asked of it; it does not wait for an answer that cannot come.
func TestADeniedCallIsNamed(t *testing.T) {
	t.Parallel()
	s := startSecured(t, "certs")
	// A worker makes nothing, and says who does.
	out, err := tryLockstep(t, append([]string{"worker", "--name", "blue-1"}, s.flags("worker")...)...)
	if err == nil || !strings.Contains(out, `"$JS.API.STREAM.CREATE.PENGUINS"`) ||
		!strings.Contains(out, "lockstep init") {
		t.Errorf("a worker without streams: %v\n%s", err, out)
	}
	lockstep(t, append([]string{"init"}, s.flags("operator")...)...)
	stop := s.serve(t, "blue-2")
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := writeFile(file, lesson+"\n"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, c := range []struct{ user, call, denied string }{
		{"predictor", "teach " + lesson, "penguins.teach"},
		{"predictor", "learn " + file, "$JS.API.STREAM.INFO.PENGUINS"},
		{"predictor", "learn --spec penguins " + file, "penguins.learn"},
		{"predictor", "verify", "$JS.API.STREAM.INFO.PENGUINS"},
		{"predictor", "init", "$JS.API.STREAM.INFO.PENGUINS"},
		{"predictor", "worker --name x", "$JS.API.STREAM.INFO.PENGUINS"},
		{"teacher", "snapshot ls", "$JS.API.STREAM.INFO.PENGUINS"},
		{"worker", "predict " + measures, "penguins.predict"},
		{"worker", "init --replicas 3", "$JS.API.STREAM.UPDATE.PENGUINS"},
		{"observer", "verify", "penguins.ctl.checkpoint"},
		{"observer", "snapshot put", "penguins.ctl.checkpoint"},
		{"observer", "worker --name x", "penguins.status"},
		{"operator", "worker --name x", "penguins.status"},
	} {
		words := strings.Fields(c.call)
		if strings.HasSuffix(c.call, "}") {
			verb, body, _ := strings.Cut(c.call, " ")
			words = []string{verb, body}
		}
		out, err := tryLockstep(t, append(words, s.flags(c.user)...)...)
		if err == nil || !strings.Contains(out, `"`+c.denied+`"`) {
			t.Errorf("%s: lockstep %s: %v, and not a word of %s:\n%s", c.user, c.call, err, c.denied, out)
		}
	}
	t.Logf("%s for all of them", time.Since(began).Round(time.Millisecond))
	for _, c := range []struct{ user, call string }{
		{"teacher", "learn --spec penguins " + file},
		{"observer", "status"}, {"observer", "snapshot ls"}, {"predictor", "status"},
		{"operator", "verify"}, {"operator", "snapshot put"}, {"operator", "compact --force"},
	} {
		lockstep(t, append(strings.Fields(c.call), s.flags(c.user)...)...)
	}
	stop()
}

// TestWhoAsksCannotWrite: an answer goes nowhere but to an inbox. A request
// whose answer is to go to the log, or to JetStream's API, would be written
// there with the worker's rights.
func TestWhoAsksCannotWrite(t *testing.T) {
	t.Parallel()
	s := startSecured(t, "nkeys")
	lockstep(t, append([]string{"init"}, s.flags("operator")...)...)
	s.serve(t, "blue-1")
	operator, predictor := s.connect(t, "operator"), s.connect(t, "predictor")
	log, err := bus.BindLog(t.Context(), operator, bus.LogConfig{Model: "penguins"})
	if err != nil {
		t.Fatal(err)
	}
	boards, err := fleet.BindBuckets(t.Context(), operator, "penguins")
	if err != nil {
		t.Fatal(err)
	}
	if err := boards.Checkpoints.Put(t.Context(), "attest.x", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"penguins.learn", "penguins.ctl.checkpoint", "penguins.count.predicted", "$JS.API.STREAM.PURGE.KV_penguins_checkpoints", "$JS.API.STREAM.PURGE.PENGUINS", "$KV.penguins_checkpoints.base.pinned"} {
		for _, door := range []string{"predict", "explain", "status"} {
			if err := predictor.PublishRequest("penguins."+door, target, []byte(measures)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := request("penguins.predict", measures)(t.Context(), predictor); err != nil { // it came after them, and is answered
		t.Fatal(err)
	}
	if _, last, err := log.End(t.Context()); err != nil || last != 1 {
		t.Errorf("the log ends at %d: %v", last, err)
	}
	entries, err := boards.Checkpoints.List(t.Context(), "attest")
	if err != nil || len(entries) != 1 {
		t.Errorf("%d attestations are left: %v", len(entries), err)
	}
	if base, err := boards.Checkpoints.List(t.Context(), "base"); err != nil || len(base) != 0 {
		t.Errorf("a base was written: %v", err)
	}
}

// published is what the server's trace shows of a client's publications.
var published = regexp.MustCompile(`cid:(\d+).*<<- \[H?PUB (\S+)`)

// trace keeps what clients publish, by the client's number.
type trace struct {
	mu  sync.Mutex
	all map[string]map[string]bool
}

func (tr *trace) Tracef(format string, args ...any) {
	if found := published.FindStringSubmatch(fmt.Sprintf(format, args...)); found != nil {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if tr.all[found[1]] == nil {
			tr.all[found[1]] = map[string]bool{}
		}
		tr.all[found[1]][found[2]] = true
	}
}
func (*trace) Fatalf(string, ...any)  {}
func (*trace) Errorf(string, ...any)  {}
func (*trace) Warnf(string, ...any)   {}
func (*trace) Noticef(string, ...any) {}
func (*trace) Debugf(string, ...any)  {}

// TestAWorkersRightsAreThoseItUses traces workers that do all that they do,
// and compares what they publish with the role's rights, both ways.
func TestAWorkersRightsAreThoseItUses(t *testing.T) {
	t.Parallel()
	s := startSecured(t, "certs")
	tr := &trace{all: map[string]map[string]bool{}}
	s.server.SetLoggerV2(tr, false, true, false)
	lockstep(t, append([]string{"init"}, s.flags("operator")...)...)
	stop := s.serve(t, "blue-1")
	s.serve(t, "blue-2")
	operator := func(args ...string) { lockstep(t, append(args, s.flags("operator")...)...) }
	for range 5 { // more than are kept
		operator("teach", lesson)
		operator("predict", measures)
		operator("snapshot", "put")
	}
	conn := s.connect(t, "operator")
	if err := appendTo("penguins.learn", `{"bad":true}`)(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	operator("compact")
	stop()
	s.serve(t, "blue-3") // from a snapshot

	names := map[string]string{}
	for _, state := range []natsserver.ConnState{natsserver.ConnOpen, natsserver.ConnClosed} {
		page, err := s.server.Connz(&natsserver.ConnzOptions{State: state, Limit: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Conns {
			names[fmt.Sprint(c.Cid)] = c.Name
		}
	}
	var rights []string
	for _, r := range fleet.Roles("penguins") {
		if r.Name == "worker" {
			rights = r.Publish
		}
	}
	used := map[string]bool{}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for cid, subjects := range tr.all { // order: each is looked at alone
		if !strings.HasPrefix(names[cid], "lockstep worker ") {
			continue
		}
		for subject := range subjects { // order: as above
			allowed := false
			for _, r := range rights {
				if natsserver.SubjectsCollide(subject, r) {
					used[r], allowed = true, true
				}
			}
			if !allowed {
				t.Errorf("a worker publishes to %s, and has no right to", subject)
			}
		}
	}
	// Not seen here: doubt of a log that looks rolled back, an advisory, two
	// that write one snapshot, and a server that slows down a large one.
	seldom := regexp.MustCompile(
		`^penguins\.ctl\.checkpoint$|^penguins\.advisory\.>$|DIRECT\.GET\.KV_penguins_checkpoints\.>$|^\$JS\.FC\.`,
	)
	for _, r := range rights {
		if !used[r] && !seldom.MatchString(r) {
			t.Errorf("a worker has the right to publish to %s, and does not use it", r)
		}
	}
}

// TestAWorkerSaysWhatDiffers: it binds streams that are not as they should be
// where that loses nothing, changes nothing, and says so.
func TestAWorkerSaysWhatDiffers(t *testing.T) {
	t.Parallel()
	url, js := newServer(t)
	lockstep(t, "init", "-s", url)
	alter(t, js, "KV_penguins_checkpoints", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 })
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := worker.Serve(ctx, worker.JoinConfig{
		Connect: bus.ConnectConfig{
			Server: url, Bare: true,
		}, Name: "blue-1", Version: "1.2.3", Spec: model.DefaultSpec(), Logger: slog.New(slog.NewTextHandler(&out, nil)),
		OnState: func(state fleet.State) {
			if state == fleet.Ready {
				cancel()
			}
		},
	})
	if err != nil ||
		!strings.Contains(out.String(), "KV_penguins_checkpoints: max_msgs_per_subject is 5, and should be 1") ||
		!strings.Contains(out.String(), "lockstep init --dry-run") {
		t.Errorf("%v\n%s", err, out.String())
	}
	alter(t, js, "PENGUINS", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour })
	if out, err := tryLockstep(t, "worker", "-s", url); err == nil ||
		!strings.Contains(out, "max age is 1h0m0s and would cut the head") ||
		!strings.Contains(out, "lockstep init") {
		t.Errorf("a log that will be cut: %v\n%s", err, out)
	}
}
