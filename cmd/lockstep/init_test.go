package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/worker/replica"
)

// newServer starts a server of the test's own, without users.
func newServer(t *testing.T) (url string, js jetstream.JetStream) {
	t.Helper()
	s, err := broker.Start(t.Context(), broker.Config{StoreDir: t.TempDir(), Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown() })
	conn, err := bus.Connect(t.Context(), bus.ConnectConfig{Server: s.ClientURL(), Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if js, err = jetstream.New(conn.Conn); err != nil {
		t.Fatal(err)
	}
	return s.ClientURL(), js
}

// alter changes a stream behind the program's back.
func alter(t *testing.T, js jetstream.JetStream, stream string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	config := s.CachedInfo().Config
	change(&config)
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

// planned is what init --json says it would do, by stream.
func planned(t *testing.T, args ...string) (all map[string]bus.Plan, done bool, err error) {
	t.Helper()
	out, err := tryLockstep(t, append([]string{"init", "--json"}, args...)...)
	var got initialized
	line, _, _ := strings.Cut(out, "\n")
	if json.Unmarshal([]byte(line), &got) != nil {
		t.Fatalf("no JSON: %v: %s", err, out)
	}
	all = map[string]bus.Plan{}
	for _, p := range got.Plans {
		all[p.Stream] = p
	}
	return all, got.Done, err
}

func settings(p bus.Plan) (out []string) {
	for _, d := range p.Differences {
		out = append(out, d.Setting)
	}
	return out
}

// TestInit: the streams are made once, shown first, and mended where that
// loses nothing.
func TestInit(t *testing.T) {
	t.Parallel()
	url, js := newServer(t)
	ctx := t.Context()
	plans, done, err := planned(t, "-s", url, "--dry-run")
	if done || err != nil || len(plans) != 6 {
		t.Fatalf("done %t, %v, %v", done, err, plans)
	}
	if _, err := js.Stream(ctx, "PENGUINS"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("a dry run made the log: %v", err)
	}
	var both sync.WaitGroup
	for range 4 {
		both.Go(func() {
			if out, err := tryLockstep(t, "init", "-s", url); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	both.Wait()
	if out := lockstep(t, "init", "-s", url); !strings.Contains(out, "Nothing to do.") {
		t.Errorf("the second run says\n%s", out)
	}
	info, err := js.Stream(ctx, "PENGUINS")
	if err != nil {
		t.Fatal(err)
	}
	if state := info.CachedInfo().State; state.LastSeq != 1 {
		t.Errorf("the log has %d messages, and not its genesis", state.LastSeq)
	}

	// What does no harm is mended.
	alter(t, js, "PENGUINS", func(c *jetstream.StreamConfig) {
		c.MaxBytes, c.Discard, c.AllowRollup = 1<<20, jetstream.DiscardOld, true
	})
	alter(
		t, js, "KV_penguins_checkpoints",
		func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour; c.Duplicates = time.Minute },
	)
	plans, _, err = planned(t, "-s", url, "--dry-run")
	if got := strings.Join(settings(plans["PENGUINS"]), " "); err != nil ||
		got != "allow_rollup_hdrs discard max_bytes" {
		t.Errorf("the log differs in %s: %v", got, err)
	}
	lockstep(t, "init", "-s", url)
	if plans, _, _ = planned(t, "-s", url, "--dry-run"); slices.ContainsFunc(
		[]string{"PENGUINS", "KV_penguins_checkpoints"},
		func(s string) bool { return !plans[s].Nothing() },
	) {
		t.Errorf("it is not mended: %v", plans)
	}
	if got, err := js.Stream(ctx, "PENGUINS"); err != nil ||
		!slices.Contains(got.CachedInfo().Config.Subjects, "penguins.learn") {
		t.Errorf("the log lost a subject: %v", err)
	}

	// What would lose data is refused, and then nothing is changed.
	for range 2 {
		if _, err := js.Publish(ctx, "penguins.verdict.rejected.1.0.0", nil); err != nil {
			t.Fatal(err)
		}
		alter(t, js, "PENGUINS_VERDICTS", func(c *jetstream.StreamConfig) {
			c.DiscardNewPerSubject, c.MaxMsgsPerSubject, c.Discard = false, -1, jetstream.DiscardOld
		})
	}
	alter(t, js, "PENGUINS", func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 })
	plans, done, err = planned(t, "-s", url)
	if done || err == nil || !plans["PENGUINS_VERDICTS"].Refused() || plans["PENGUINS"].Refused() {
		t.Errorf("done %t, %v: %v", done, err, plans)
	}
	if info, err := js.Stream(ctx, "PENGUINS"); err != nil || info.CachedInfo().Config.MaxBytes != 1<<20 {
		t.Errorf("something was changed all the same: %v", err)
	}
	if out, err := tryLockstep(t, "init", "-s", url); err == nil ||
		!strings.Contains(out, "max_msgs_per_subject: unlimited → 1") ||
		!strings.Contains(out, "left alone: that would delete messages") {
		t.Errorf("%v\n%s", err, out)
	}
	// Another spec under the same name would mean something else by the same events.
	if out, err := tryLockstep(t, "init", "-s", url, "--spec", renamedSpec(t)); !errors.Is(err, replica.ErrContract) {
		t.Errorf("another contract: %v\n%s", err, out)
	}
}

// renamedSpec is a file with another spec of the model penguins.
func renamedSpec(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../model/penguins-gaussian.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "spec.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(string(data), "name: penguins-gaussian", "name: penguins", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestInitMakesAClusterSafer: one copy of each message becomes three while
// the log is in use, and nothing is lost. Fewer copies are refused.
func TestInitMakesAClusterSafer(t *testing.T) {
	t.Parallel()
	url, js := newCluster3(t)
	lockstep(t, "init", "-s", url)
	for range 10 {
		if _, err := js.Publish(t.Context(), "penguins.learn", []byte(lesson)); err != nil {
			t.Fatal(err)
		}
	}
	lockstep(t, "init", "-s", url, "--replicas", "3")
	if out := lockstep(t, "init", "-s", url, "--replicas", "3"); !strings.Contains(out, "Nothing to do.") {
		t.Errorf("the second run says\n%s", out)
	}
	s, err := js.Stream(t.Context(), "PENGUINS")
	if err != nil {
		t.Fatal(err)
	}
	if info := s.CachedInfo(); info.Config.Replicas != 3 || info.State.LastSeq != 11 {
		t.Errorf("%d replicas, %d messages", info.Config.Replicas, info.State.LastSeq)
	}
	if out, err := tryLockstep(t, "init", "-s", url, "--replicas", "1"); err == nil ||
		!strings.Contains(out, "fewer servers would have what is stored") {
		t.Errorf("%v\n%s", err, out)
	}
}
