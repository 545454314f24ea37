//go:build e2e

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"lockstep/bus"
)

// TestColdStart times a worker that starts from a snapshot of a long log beside
// one that starts on an empty log. LOCKSTEP_EVENTS says how long.
func TestColdStart(t *testing.T) {
	events := 1_000_000
	if text := os.Getenv("LOCKSTEP_EVENTS"); text != "" {
		var err error
		if events, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	ready := func(url, name string) time.Duration {
		began := time.Now()
		startWorkers(t, url, name)
		return time.Since(began)
	}
	empty := ready(server(t), "empty")

	url := server(t)
	nc := connectTo(t, url)
	ready(url, "first")
	log, err := bus.BindLog(t.Context(), nc, bus.LogConfig{Model: "penguins"})
	if err != nil {
		t.Fatal(err)
	}
	rows := penguinEvents(t)
	const batch = 100
	began := time.Now()
	p := log.Publisher(t.Context(), "penguins.learn", func(int, bus.Ack, error) {})
	for i := range events / batch {
		var body bytes.Buffer
		for j := range batch {
			body.WriteByte("[,"[min(j, 1)])
			body.Write(rows[(i*batch+j)%len(rows)])
		}
		body.WriteByte(']')
		if err := p.Publish(fmt.Sprint(i), body.Bytes(), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events in %d messages appended in %s", events, events/batch, time.Since(began).Round(time.Millisecond))
	if err := run(t.Context(), []string{"snapshot", "put", "-s", url, "--timeout", "5m"}, os.Stdin, os.Stderr, os.Stderr); err != nil {
		t.Fatal(err)
	}
	cold := ready(url, "cold")
	t.Logf(
		"ready: on an empty log %s, from a snapshot of %d events %s", empty.Round(time.Millisecond), events,
		cold.Round(time.Millisecond),
	)
	fleet, err := fleetStatus(t.Context(), nc, "penguins", time.Second)
	if err != nil || len(fleet) != 2 || fleet[0].Digest != fleet[1].Digest || fleet[0].Restored == 0 ||
		fleet[0].Learned != uint64(events) {
		t.Errorf("%+v %v", fleet, err)
	}
}
