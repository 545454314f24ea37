package bus

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"lockstep/bus/broker"
)

// TestOneMakesTheLog: of two that found no genesis one alone appends it, and
// opens the log for learning; the other waits for that, and does it only if
// the first does not come.
func TestOneMakesTheLog(t *testing.T) {
	server, err := broker.Start(t.Context(), broker.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	conn, err := Connect(t.Context(), ConnectConfig{Server: server.ClientURL()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l, err := newLog(conn, LogConfig{Model: "m", Genesis: func() []byte { return []byte(NewID()) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bindOrCreate(t.Context(), conn, l.js, l.config.stream(l.config.controlSubject(">"))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if first, err := l.appendGenesis(t.Context()); first != want || err != nil {
			t.Errorf("first to append is %t: %v, want %t", first, err, want)
		}
	}
	if _, last, err := l.End(t.Context()); last != 1 || err != nil {
		t.Errorf("the log ends at %d: %v", last, err)
	}
	opened := func(within time.Duration, first bool) bool {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		err := l.addLearn(ctx, first)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		info, infoErr := l.info(t.Context())
		if infoErr != nil {
			t.Fatal(infoErr)
		}
		if open := slices.Contains(info.Config.Subjects, "m.learn"); open != (err == nil) {
			t.Errorf("it is open %t, and returned %v", open, err)
		}
		return err == nil
	}
	if opened(500*time.Millisecond, false) {
		t.Error("the second does not wait for the first")
	}
	if !opened(apiTimeout, false) {
		t.Error("the second waits for ever")
	}
}
