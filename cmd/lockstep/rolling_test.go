//go:build e2e && linux

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lockstep/bus"
)

const (
	rollingPredictors = 6
	rollingPause      = 10 * time.Millisecond // of each, between two predictions
	rollingQuiet      = time.Second           // between two replacements
	rollingVersion    = "99.0.1"
)

// asked is what became of the predictions, each asked for once more if the
// first attempt failed.
type asked struct {
	once, again, failed atomic.Int64 // answered at once, at the second attempt, not at all
}

// TestRollingRestart replaces all servers of a cluster and then its workers,
// one by one, as the runbook says and while clients predict and teach. One
// half of the workers comes back as another version of the program, and a
// worker with another contract tries to get in. No prediction fails that one
// retry does not fix, and nothing acknowledged is lost.
func TestRollingRestart(t *testing.T) {
	c := &campaign{
		random: chance(t), rows: penguinEvents(t), closing: make(chan struct{}),
		promises: map[string]lessonAnswer{}, events: map[string]int{}, failures: map[string]int{},
	}
	c.cluster = newCluster(t)
	c.start(t)
	c.workers = c.startWorkers(t, killNames...)
	newer := filepath.Join(t.TempDir(), "lockstep")
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.version="+rollingVersion, "-o", newer, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the newer program: %v\n%s", err, out)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.learning = newGaps()
	c.startPublishers(ctx, t)
	var count asked
	for range rollingPredictors {
		c.askTwice(ctx, connectTo(t, c.urls()), &count)
	}
	nc := connectTo(t, c.urls())

	began := time.Now()
	for _, n := range c.nodes {
		c.roll(t, n.name, &count, func() {
			// Lame duck: the server asks its clients to leave before it ends.
			if err := n.stop(syscall.SIGUSR2); err != nil {
				t.Fatalf("%s: %v", n.name, err)
			}
			n.start(t)
			if trouble := c.ails(settle); trouble != "" {
				t.Fatalf("%s after %s came back the cluster is not well: %s", settle, n.name, trouble)
			}
		})
	}
	for i, w := range c.workers {
		program := "lockstep"
		if i%2 == 1 {
			program = newer
		}
		c.roll(t, w.name, &count, func() {
			if err := w.stop(syscall.SIGTERM); err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			c.workers[i] = spawn(
				t, w.name, append(os.Environ(), "HOME="+t.TempDir()), `"state":"ready"`, program, "worker", "-s",
				c.urls(), "--replicas", "3", "--name", w.name,
			)
			c.workers[i].await(t)
		})
	}
	c.refuseStranger(t, nc)
	took := time.Since(began)

	close(c.closing)
	c.predictors.Wait() // each has its answer, or has failed twice
	if !inTime(settle, c.publishers.Wait) {
		t.Error("there are events that no retry gets acknowledged")
	}
	cancel()
	c.publishers.Wait()
	var out tortured
	c.audit(t, &out)

	versions := map[string]int{}
	fleet, err := fleetStatus(t.Context(), nc, "penguins", time.Second)
	for _, s := range fleet {
		versions[s.Version]++
	}
	if err != nil || len(fleet) != len(c.workers) || versions[rollingVersion] != len(c.workers)/2 || len(versions) != 2 {
		t.Errorf("the fleet is %v: %v", versions, err)
	}
	t.Logf("%d servers and %d workers replaced in %.0f s", clusterSize, len(c.workers), took.Seconds())
	t.Logf(
		"predictions: %d answered at once, %d at the retry, %d not at all", count.once.Load(), count.again.Load(),
		count.failed.Load(),
	)
	t.Logf(
		"events: %d acknowledged, %d lost, %d learned twice, %d answers that the log contradicts; %d replicas differ "+
			"from the log",
		out.Acknowledged, out.Lost, out.Duplicated, out.Contradicted, out.Divergent,
	)
	t.Logf("versions: %v", versions)
	for _, text := range slices.Sorted(maps.Keys(out.Failures)) {
		t.Logf("%5d × %s", out.Failures[text], text)
	}
	if count.failed.Load() > 0 {
		t.Errorf("%d predictions failed twice", count.failed.Load())
	}
	if count.once.Load() < 1000 || out.Acknowledged < 500 {
		t.Errorf("that was no load: %d predictions, %d events", count.once.Load(), out.Acknowledged)
	}
}

// roll replaces a process, and waits until the fleet learns and is well.
func (c *campaign) roll(t *testing.T, name string, count *asked, replace func()) {
	began := time.Now()
	again := count.again.Load()
	c.learning.window()
	replace()
	for before, deadline := c.learning.hits(), time.Now().Add(settle); c.learning.hits() < before+20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s after %s came back nothing is learned", settle, name)
		}
	}
	for i, w := range c.workers {
		if w.ended() {
			t.Fatalf("%s has ended while %s was replaced: %v\n%s", c.workers[i].name, name, w.err, w.output())
		}
	}
	gap, _ := c.learning.window()
	t.Logf(
		"%s replaced in %.1f s: %d predictions needed a retry, at most %d ms without learning", name,
		time.Since(began).Seconds(), count.again.Load()-again, gap.Milliseconds(),
	)
	time.Sleep(rollingQuiet) // so that what fails then is not taken for the next one's
}

// askTwice has a client ask for predictions, and once more for each that it
// does not get.
func (c *campaign) askTwice(ctx context.Context, nc *bus.Conn, count *asked) {
	for k := range 2 { // the second goes on while the first waits
		c.predictors.Go(func() {
			for i := k; ; i += 2 {
				select {
				case <-c.closing:
					return
				case <-time.After(rollingPause):
				}
				row := c.rows[i%len(c.rows)]
				f, err := predictRow(ctx, nc, row)
				first := err
				if err != nil {
					f, err = predictRow(ctx, nc, row)
				}
				c.mu.Lock()
				if first != nil {
					c.failures["predict: "+why(first)]++
				}
				if err != nil {
					c.failures["predict, again: "+why(err)]++
				} else if i%tortureSample == 0 {
					c.foretold = append(c.foretold, f)
				}
				c.mu.Unlock()
				switch {
				case err != nil:
					count.failed.Add(1)
				case first != nil:
					count.again.Add(1)
				default:
					count.once.Add(1)
				}
			}
		})
	}
}

// refuseStranger starts a worker whose spec is another one. It must end, say
// why, and never be one of the fleet.
func (c *campaign) refuseStranger(t *testing.T, nc *bus.Conn) {
	t.Helper()
	spec := filepath.Join(t.TempDir(), "other.yaml")
	text := strings.Replace(readFile(t, "../../model/penguins.yaml"), "alpha: 1", "alpha: 2", 1)
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := spawn(
		t, "stranger", append(os.Environ(), "HOME="+t.TempDir()), `"state":"ready"`, "lockstep", "worker", "-s",
		c.urls(), "--spec", spec, "--name", "stranger",
	)
	for seen := false; !seen; {
		select {
		case <-stranger.ready:
			t.Fatalf("a worker with another contract is ready:\n%s", stranger.output())
		case <-stranger.done:
			seen = true
		case <-time.After(clusterPatience):
			t.Fatalf("a worker with another contract goes on:\n%s", stranger.output())
		default:
			fleet, err := fleetStatus(t.Context(), nc, "penguins", 50*time.Millisecond)
			for _, s := range fleet {
				if s.Replica == "stranger" && s.State == "ready" {
					t.Fatalf("a worker with another contract is in the fleet: %v", err)
				}
			}
		}
	}
	mine, theirs := contractOf(t, "../../model/penguins.yaml"), contractOf(t, spec)
	out := stranger.output()
	if stranger.err == nil || !strings.Contains(out, "contract") || !strings.Contains(out, mine) ||
		!strings.Contains(out, theirs) {
		t.Errorf(
			"a worker with the contract %s, where the log has %s, ended (%v) and said:\n%s", theirs, mine,
			stranger.err, out,
		)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	t.Logf("a worker with another contract: %s", lines[len(lines)-1])
}

// contractOf is how a spec's contract begins.
func contractOf(t *testing.T, path string) string {
	t.Helper()
	s, err := loadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%.8x", s.Contract())[:8]
}
