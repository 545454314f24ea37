package bus_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"lockstep/bus"
)

// TestBoard: entries are put, created once, listed below a key, and removed.
func TestBoard(t *testing.T) {
	t.Parallel()
	conn := newConn(t)
	ctx := testContext(t)
	var boards [6]*bus.Board
	var opening sync.WaitGroup
	for i := range boards {
		opening.Go(func() {
			var err error
			if boards[i], err = bus.OpenBoard(ctx, conn, bus.BoardConfig{Bucket: "m_board"}); err != nil {
				t.Error(err)
			}
		})
	}
	opening.Wait()
	b := boards[0]
	keys := func(below string) string {
		t.Helper()
		entries, err := b.List(ctx, below)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			out = append(out, e.Key+"="+string(e.Value))
		}
		return strings.Join(out, " ")
	}
	if got := keys("a"); got != "" {
		t.Errorf("an empty board has %s", got)
	}
	for _, key := range []string{"a.2.y", "a.2.x", "a.10.x", "b.1"} {
		if err := b.Put(ctx, key, []byte("0")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(ctx, "a.2.x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	created := 0
	for _, other := range boards {
		ok, err := other.Create(ctx, "a.2.z", []byte("2"))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			created++
		}
	}
	if created != 1 {
		t.Errorf("created %d times", created)
	}
	if got := keys("a.2"); got != "a.2.x=1 a.2.y=0 a.2.z=2" {
		t.Error(got)
	}
	if got := keys("a"); got != "a.10.x=0 a.2.x=1 a.2.y=0 a.2.z=2" {
		t.Error(got)
	}
	if err := b.Remove(ctx, "a.2"); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(ctx, "b.1"); err != nil {
		t.Fatal(err)
	}
	if got := keys("a") + keys("b"); got != "a.10.x=0" {
		t.Error(got)
	}
	if ok, err := b.Create(ctx, "a.2.z", nil); !ok || err != nil {
		t.Error("what was removed cannot be created again", err)
	}
	for i := range 500 {
		if err := b.Put(ctx, fmt.Sprint("many.", i), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := b.List(ctx, "many"); len(all) != 500 || err != nil {
		t.Errorf("%d of 500 are listed: %v", len(all), err)
	}
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	conn := newConn(t)
	ctx := testContext(t)
	b, err := bus.OpenBlobs(ctx, conn, "m_blobs", "", 1)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := b.List(ctx); len(names) > 0 || err != nil {
		t.Error(names, err)
	}
	if _, err := b.Get(ctx, "x"); !errors.Is(err, bus.ErrDamaged) {
		t.Error(err)
	}
	big := make([]byte, 3<<20)
	big[len(big)-1] = 1
	if err := errors.Join(b.Put(ctx, "x", big), b.Put(ctx, "y", nil)); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(ctx, "x"); err != nil || !slices.Equal(got, big) {
		t.Errorf("%d bytes come back: %v", len(got), err)
	}
	if names, err := b.List(ctx); err != nil || !slices.Equal(names, []string{"x", "y"}) {
		t.Error(names, err)
	}
	if err := errors.Join(b.Remove(ctx, "x"), b.Remove(ctx, "x")); err != nil {
		t.Error(err)
	}
	if _, err := b.Get(ctx, "x"); !errors.Is(err, bus.ErrDamaged) {
		t.Error(err)
	}
}
