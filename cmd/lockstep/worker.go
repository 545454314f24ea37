package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/cmd/lockstep/internal/terminal"
	"lockstep/worker"
	"lockstep/worker/web"
)

// replicaName is what a worker may be called: it is a token of subjects.
var replicaName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func workerCommand() *cobra.Command {
	var c connection
	var h httpDoor
	var name, spec, level string
	var replicas int
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Join a fleet: replay its log, predict and learn",
		Long: `Worker joins the fleet of a model: it replays the model's log into a replica of
its own, and once it has caught up it answers. The first worker of a model makes
its log. A worker without a server waits for one. On SIGTERM or SIGINT it answers
what it has accepted, and leaves.`,
		Example: `  lockstep worker                                   # the server on this machine
  lockstep worker -s nats://a:4222,nats://b:4222 --creds worker.creds --name blue-1
  lockstep worker --spec my-model.yaml --context prod --replicas 3
  lockstep worker --http :8080                      # HTTP on 127.0.0.1 too: a page, predict, learn, metrics
  lockstep worker --http 0.0.0.0:8443 --http-token @token --http-tlscert cert.pem --http-tlskey key.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadAnySpec(spec) // worker.Serve asks the log for the rest
			if err != nil {
				return err
			}
			if name == "" {
				name = defaultName()
			}
			if !replicaName.MatchString(name) {
				return usage("--name %q: a name has 1 to 64 letters, digits, hyphens and underscores", name)
			}
			if replicas < 1 || replicas > 5 {
				return usage("--replicas is %d, and must be from 1 to 5", replicas)
			}
			var logged slog.Level
			if err := logged.UnmarshalText([]byte(level)); err != nil {
				return usage("--log-level is %q, and must be debug, info, warn or error", level)
			}
			log := logger(cmd.ErrOrStderr(), logged)
			config := c.config
			config.Wait = true
			config.Notice = func(text string) { log.Info(text, "replica", name) }
			join := worker.JoinConfig{
				Connect: config, Name: name, Version: programVersion(), Spec: s, Replicas: replicas, Logger: log,
			}
			door, err := h.open(log.With("replica", name))
			if err != nil {
				return err
			}
			if door == nil {
				return worker.Serve(cmd.Context(), join)
			}
			return web.Serve(cmd.Context(), join, door)
		},
	}
	c.addFlags(cmd)
	addSpecFlag(cmd, &spec)
	h.addFlags(cmd, "", "address of the HTTP door, host:port; :8080 is 127.0.0.1:8080 (default: none)")
	cmd.Flags().
		StringVar(&name, "name", "", "the replica's name, unique in the fleet (default: the host's and a random part)")
	cmd.Flags().
		StringVar(&level, "log-level", "info", "debug, info, warn or error; debug adds a line per HTTP request, without "+
			"its content")
	cmd.Flags().
		IntVar(&replicas, "replicas", 1, "JetStream replicas of the streams, if this worker makes them: 3 in a cluster")
	return cmd
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "worker"
	}
	host = notInNames.ReplaceAllString(host, "-")
	return fmt.Sprintf("%.40s-%s", host, bus.NewID()[16:])
}

// logger writes for people on a terminal, and JSON elsewhere.
func logger(out io.Writer, level slog.Level) *slog.Logger {
	if terminal.Is(out) {
		return people(out, level)
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level}))
}

// people writes a log for people, in colours on a terminal that has them.
func people(out io.Writer, level slog.Level) *slog.Logger {
	plain := !terminal.Is(out) || os.Getenv("NO_COLOR") != ""
	if w, ok := out.(*terminal.Writer); ok {
		out = w.Colours() // the handler escapes
	}
	options := &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: plain}
	return slog.New(printable.Handler(tint.NewTextHandler(out, options)))
}
