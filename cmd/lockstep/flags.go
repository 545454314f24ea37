package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/printable"
	"lockstep/model"
)

// connection is how a command reaches NATS: the nats CLI's own flags.
type connection struct {
	config  bus.ConnectConfig
	model   string
	timeout time.Duration
}

func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&c.config.Server, "server", "s", "", "NATS server URLs (NATS_URL)")
	f.StringVar(&c.config.Context, "context", "", "nats context to use (NATS_CONTEXT)")
	f.StringVar(&c.config.Creds, "creds", "", "credentials file (NATS_CREDS)")
	f.StringVar(&c.config.NKey, "nkey", "", "nkey seed file (NATS_NKEY)")
	f.StringVar(&c.config.User, "user", "", "user name or token (NATS_USER)")
	f.StringVar(&c.config.Password, "password", "", "password (NATS_PASSWORD)")
	f.StringVar(&c.config.TLSCert, "tlscert", "", "TLS client certificate (NATS_CERT)")
	f.StringVar(&c.config.TLSKey, "tlskey", "", "TLS client key (NATS_KEY)")
	f.StringVar(&c.config.TLSCA, "tlsca", "", "TLS certificate authority (NATS_CA)")
	f.StringVar(&c.config.InboxPrefix, "inbox-prefix", "", "prefix of inboxes, where rights are narrow")
}

// addModelFlags adds what every client of a model takes.
func (c *connection) addModelFlags(cmd *cobra.Command) {
	c.addFlags(cmd)
	cmd.Flags().StringVar(&c.model, "model", "penguins", "the model's name: it begins every subject")
}

// addClientFlags adds what every client of a fleet takes that waits for it.
func (c *connection) addClientFlags(cmd *cobra.Command) {
	c.addModelFlags(cmd)
	cmd.Flags().DurationVar(&c.timeout, "timeout", 5*time.Second, "how long to wait for answers")
}

// connect connects or says where it tried.
func (c *connection) connect(ctx context.Context, name string) (*bus.Conn, error) {
	if c.timeout < 0 {
		return nil, usage("--timeout is %s, and must be more than nothing", c.timeout)
	}
	config := c.config
	config.Name = "lockstep " + name
	nc, err := bus.Connect(ctx, config)
	if err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	return nc, nil
}

// remote gives an answer's error its exit code.
func remote(err error) error {
	var answer *bus.RemoteError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer) && answer.Code < 500:
		return &exitError{exitUsage, explained(answer)}
	case errors.As(err, &answer):
		return &exitError{exitFailed, printable.Error(err)}
	}
	return &exitError{exitUnreachable, printable.Error(err)}
}

// explained is an answer's error with all its problems, one a line.
func explained(answer *bus.RemoteError) error {
	var body struct {
		Detail []model.Problem `json:"detail"`
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil || len(body.Detail) < 2 {
		return printable.Error(answer)
	}
	text := fmt.Sprintf("refused with %d problems (%d):", len(body.Detail), answer.Code)
	for _, p := range body.Detail {
		text += "\n  " + printable.Text(p.String())
	}
	return &refused{text, answer}
}

// refused is an answer's error in other words.
type refused struct {
	text   string
	answer *bus.RemoteError
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.answer }

// loadSpec reads a spec by the name of one that Lockstep ships, or a file. It
// must be fit to begin a log with.
func loadSpec(name string) (*model.Spec, error) {
	s, err := loadAnySpec(name)
	if err != nil {
		return nil, err
	}
	if _, err := model.New(s); err != nil {
		return nil, usage("%s: %w", name, err)
	}
	return s, nil
}

// loadAnySpec also takes a spec that only a log that has it already may have.
func loadAnySpec(name string) (*model.Spec, error) {
	if shipped, ok := model.ShippedSpec(name); ok {
		return shipped, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, usage("--spec takes a YAML file or one of %s: %w", strings.Join(model.ShippedSpecs(), ", "), err)
	}
	s, err := model.ParseSpec(data)
	if err != nil {
		return nil, usage("%s: %w", name, err)
	}
	logged := *s
	logged.Logged = true
	if _, err := model.New(&logged); err != nil {
		return nil, usage("%s: %w", name, err)
	}
	return s, nil
}

func addSpecFlag(cmd *cobra.Command, spec *string) {
	cmd.Flags().
		StringVar(spec, "spec", "penguins", "the model's spec: a YAML file, or one of "+strings.Join(model.ShippedSpecs(), ", "))
}
