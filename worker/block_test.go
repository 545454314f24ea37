package worker

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// TestAFlippedBitInTheLog: a stored block that was damaged on the disk is never
// learned from: the server drops what it cannot vouch for, and a worker halts at
// the hole.
func TestAFlippedBitInTheLog(t *testing.T) {
	f := newFleet(t)
	w := f.start("a", model.DefaultSpec())
	marked := strings.Replace(gentoo, "Biscoe", "MARKED-ISLAND", 1)
	f.teach(5)
	f.publish(marked)
	last := f.teach(5)
	f.settled(1, at(last))
	w.stop()
	port := f.server.Port()
	if err := f.server.Shutdown(); err != nil {
		t.Fatal(err)
	}
	flips := 0
	err := filepath.WalkDir(f.store, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "PENGUINS/msgs") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if i := bytes.Index(data, []byte("MARKED-ISLAND")); i >= 0 {
			data[i] ^= 2 // OARKED: as good JSON as before
			flips++
			return os.WriteFile(path, data, 0o600)
		}
		return nil
	})
	if err != nil || flips != 1 {
		t.Fatalf("%d blocks are damaged: %v", flips, err)
	}
	f.startServer(port)
	r := f.launch("b", model.DefaultSpec(), nil, nil)
	select {
	case err := <-r.err:
		var gap *bus.GapError
		if !errors.As(err, &gap) || gap.Want != 7 {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Errorf("it goes on: %+v", f.settled(1, func(fleet.Status) bool { return true }))
	}
}
