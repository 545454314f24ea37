package main

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"syscall"
	"testing"
	"time"
	"errors"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker"
)

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(0, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestScratchReplay(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("N"))
	if n == 0 {
		n = 100000
	}
	b := &bench{ctx: t.Context(), slice: time.Second, events: n, rounds: 3}
	defer func() {
		for i := len(b.close) - 1; i >= 0; i-- {
			b.close[i]()
		}
	}()
	url, err := b.server(true)
	if err != nil {
		t.Fatal(err)
	}
	log, err := b.fill(url, n, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, last, _ := log.End(t.Context())
	_ = pprof.StartCPUProfile
	if o := os.Getenv("PROF"); o != "" { f, _ := os.Create(o); pprof.StartCPUProfile(f); defer pprof.StopCPUProfile() }
	stop := errors.New("x")
	var kept []bus.Message
	layers := []struct {
		name string
		run  func() error
	}{
		{"raw", func() error { _, err := rawRead(t.Context(), url, log); return err }},
		{"tail", func() error {
			err := log.Tail(t.Context(), bus.Position{}, func(m *bus.Message) error {
				if m.Seq == last {
					return stop
				}
				return nil
			})
			if err == stop {
				err = nil
			}
			return err
		}},
		{"fold", func() error {
			m, _ := model.New(model.DefaultSpec())
			_, err := worker.FoldTo(t.Context(), log, m, last)
			return err
		}},
		{"apply", func() error {
			if kept == nil {
				_ = log.Tail(t.Context(), bus.Position{}, func(m *bus.Message) error {
					kept = append(kept, *m)
					if m.Seq == last {
						return stop
					}
					return nil
				})
				return nil
			}
			m, _ := model.New(model.DefaultSpec())
			for i := range kept {
				k := &kept[i]
				m.Apply(model.Message{Seq: k.Seq, Subject: k.Subject[len("penguins."):], ID: k.ID, Data: k.Data, Time: k.Time.UnixNano()})
			}
			return nil
		}},
		{"decode", func() error {
			d := model.NewDecoder(model.DefaultSpec())
			for i := range kept {
				d.Learn(kept[i].Data)
			}
			return nil
		}},
	}
	_ = context.Background
	for round := range 6 {
		for _, l := range layers {
			if o := os.Getenv("ONLY"); o != "" && o != l.name { continue }
			c, w := cpu(), time.Now()
			if err := l.run(); err != nil {
				t.Fatal(l.name, err)
			}
			dw, dc := time.Since(w), cpu()-c
			if round > 0 {
				fmt.Printf("%-8s wall %6.0f ns  cpu %6.0f ns  %6.0f k/s\n", l.name, float64(dw)/float64(n), float64(dc)/float64(n), float64(n)/dw.Seconds()/1000)
			}
		}
	}
}
