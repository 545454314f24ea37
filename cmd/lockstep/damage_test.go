//go:build e2e

package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep/bus"
)

// TestDamagedBlock flips a bit in one server's copy of the log while that
// server is down: the cluster repairs it, or the worker that reads it there
// stops; it is never learned.
func TestDamagedBlock(t *testing.T) {
	c := newCluster(t)
	c.start(t)
	c.startWorkers(t, "w0", "w1")
	nc := connectTo(t, c.urls())
	log, err := bus.BindLog(t.Context(), nc, bus.LogConfig{Model: "penguins"})
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range penguinEvents(t) {
		if i == 100 {
			row = bytes.Replace(row, []byte(`"island":"`), []byte(`"island":"MARKED`), 1)
		}
		if _, err := log.Append(t.Context(), "penguins.learn", bus.NewID(), row); err != nil {
			t.Fatal(err)
		}
	}
	awaitFleet(t, nc, 2, 345, 0)
	victim := c.nodes[2]
	victim.stop(syscall.SIGKILL)
	flips := 0
	err = filepath.WalkDir(victim.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "PENGUINS/msgs") {
			return err
		}
		data, err := os.ReadFile(path)
		if i := bytes.Index(data, []byte("MARKED")); err == nil && i >= 0 {
			data[i] ^= 2
			flips++
			err = os.WriteFile(path, data, 0o600)
		}
		return err
	})
	if err != nil || flips == 0 {
		t.Fatalf("%d blocks are damaged: %v", flips, err)
	}
	victim.start(t)
	if trouble := c.ails(clusterPatience); trouble != "" {
		t.Logf("the cluster says %s", trouble)
	}
	// A worker that reads from the damaged server, as far as it may choose.
	w := spawn(
		t, "w2", append(os.Environ(), "HOME="+t.TempDir()), `"state":"ready"`, "lockstep", "worker", "-s",
		victim.url(), "--replicas", "3", "--name", "w2",
	)
	select {
	case <-w.ready:
		fleet := awaitFleet(t, nc, 3, 345, 0)
		for _, s := range fleet {
			if s.Digest != fleet[0].Digest || s.Learned != 344 {
				t.Errorf("%+v", s)
			}
		}
		t.Log("repaired: the worker that hangs on the damaged server has folded the same state")
	case <-w.done:
		t.Logf("the worker ended:\n%s", w.output())
		if !strings.Contains(w.output(), "the log has a hole") {
			t.Error("and not for the hole")
		}
	case <-time.After(clusterPatience):
		t.Errorf("the worker is neither ready nor ended:\n%s", w.output())
	}
	if err := run(t.Context(), []string{"verify", "-s", c.nodes[0].url()}, os.Stdin, os.Stderr, os.Stderr); err != nil &&
		!w.ended() {
		t.Error(err)
	}
}
