package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"lockstep/worker/fleet"
)

func replicaStatus(name, state string, seq, learned uint64, digest string) fleet.Status {
	s := fleet.Status{Replica: name, State: state, Predicted: int64(10 * seq)}
	s.Seq, s.Learned, s.Digest, s.StateChain, s.LogChain, s.Encoding = seq, learned, strings.Repeat(
		digest, 64,
	), "s", "l", "e"
	return s
}

// TestTop: what the screen shows of a fleet as it changes.
func TestTop(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	screen := &top{model: "penguins"}
	screen.Init()
	look := func(after time.Duration, err error, replicas ...fleet.Status) string {
		at = at.Add(after)
		screen.Update(looked{replicas, err, at})
		return screen.text()
	}
	has := func(shown string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(shown, want) {
				t.Errorf("it does not show %q:\n%s", want, shown)
			}
		}
	}
	const red, faint = "\x1b[31;1m", "\x1b[2m"
	a, b := replicaStatus("a", "ready", 11, 10, "d"), replicaStatus("b", "ready", 11, 10, "d")
	shown := look(0, nil, b, a)
	has(shown, "penguins  03:04:05  learned 10", "a        ready        11", "dddddddddddd")
	if strings.Contains(shown, "predictions/s") || strings.Contains(shown, "\x1b[") {
		t.Errorf("after one look it knows a rate, or something is wrong:\n%s", shown)
	}
	has(look(2*time.Second, nil, replicaStatus("a", "ready", 31, 30, "d"), b), "100 predictions/s, 10 events learned/s")

	differs := replicaStatus("b", "ready", 31, 30, "x")
	differs.Advisory = "it differs"
	shown = look(time.Second, nil, replicaStatus("a", "ready", 31, 30, "d"), differs)
	has(shown, red+"a", red+"b", red+"xxxxxxxxxxxx", "b: it differs")

	has(
		look(3*time.Second, nil, replicaStatus("a", "quarantined", 31, 30, "d")), red+"a", faint+"b",
		"no answer for 3 s",
	)
	has(look(time.Second, errors.New("nobody there")), "nobody there")
	if shown := look(2*goneAfter, nil, a); strings.Contains(shown, "b ") && strings.Contains(shown, "no answer") {
		t.Errorf("who is long gone is shown:\n%s", shown)
	}

	if _, quit := screen.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); quit == nil {
		t.Error("q does not leave")
	}
}
