package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/fleet"
)

// shownFleet is a server with a fleet of one that has learned a few penguins.
type shownFleet struct {
	url string
	nc  *bus.Conn
}

func newShownFleet(t *testing.T, spec *model.Spec) *shownFleet {
	t.Helper()
	f := &shownFleet{url: server(t)}
	f.nc = connectTo(t, f.url)
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		ended <- worker.Serve(ctx, worker.JoinConfig{
			Connect: bus.ConnectConfig{Server: f.url}, Name: "blue-1", Version: "1.2.3", Spec: spec, Logger: slog.New(slog.DiscardHandler),
			OnState: func(s fleet.State) {
				if s == fleet.Ready {
					once.Do(func() { close(ready) })
				}
			},
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return f
}

func (f *shownFleet) teach(t *testing.T, name string, events ...string) {
	t.Helper()
	for _, e := range events {
		if _, err := bus.Ask(t.Context(), f.nc, name+".teach", []byte(e), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// snapshot waits until the fleet has written one, and returns its sequence.
func (f *shownFleet) snapshot(t *testing.T, name string) {
	t.Helper()
	if err := run(t.Context(), []string{"snapshot", "put", "-s", f.url, "--model", name}, nil, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
}

const shownRow = `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":null}`
