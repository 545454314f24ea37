package main

import (
	"cmp"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/worker/web"
)

// httpDoor is where and how a worker speaks HTTP.
type httpDoor struct {
	addr, token, cert, key string
	drainDelay             time.Duration
}

func (h *httpDoor) addFlags(cmd *cobra.Command, addr, help string) {
	f := cmd.Flags()
	f.StringVar(&h.addr, "http", addr, help)
	f.StringVar(
		&h.token, "http-token", "",
		"what HTTP requests must carry as Authorization: Bearer; @FILE reads it (LOCKSTEP_HTTP_TOKEN)",
	)
	f.StringVar(&h.cert, "http-tlscert", "", "the HTTP door's certificate, PEM")
	f.StringVar(&h.key, "http-tlskey", "", "and its key")
	f.DurationVar(&h.drainDelay, "drain-delay", 0,
		"how long HTTP goes on after SIGTERM while /readyz says 503, so that load balancers notice")
}

// maxDrainDelay is far above what any load balancer takes to notice.
const maxDrainDelay = 10 * time.Minute

// open makes the door and takes its address; nil if there is none.
func (h *httpDoor) open(log *slog.Logger) (*web.Server, error) {
	if h.drainDelay < 0 || h.drainDelay > maxDrainDelay {
		return nil, usage("--drain-delay is %s, and must be from 0s to %s", h.drainDelay, maxDrainDelay)
	}
	if h.addr == "" {
		if h.drainDelay > 0 {
			return nil, usage("--drain-delay goes with --http: over NATS nothing has to notice that a worker leaves")
		}
		if h.token != "" || h.cert != "" || h.key != "" {
			return nil, usage("--http-token, --http-tlscert and --http-tlskey go with --http")
		}
		return nil, nil
	}
	token := cmp.Or(h.token, os.Getenv("LOCKSTEP_HTTP_TOKEN"))
	if file, ok := strings.CutPrefix(token, "@"); ok {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, usage("--http-token: %w", err)
		}
		if token = strings.TrimSpace(string(data)); token == "" {
			return nil, usage("--http-token: %s is empty", file)
		}
	}
	if (h.cert == "") != (h.key == "") {
		return nil, usage("--http-tlscert and --http-tlskey go together")
	}
	door, err := web.New(web.Config{
		Addr: h.addr, Token: token, TLSCert: h.cert, TLSKey: h.key,
		DrainDelay: h.drainDelay, Version: programVersion(), Logger: log,
	})
	if err != nil {
		return nil, usage("--http: %w", err)
	}
	if err := door.Listen(); err != nil {
		return nil, &exitError{exitFailed, err}
	}
	return door, nil
}
