// Command lockstep runs, feeds and inspects fleets of online-learning
// workers on NATS. This package is only wiring: one file per subcommand.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"lockstep/bus"
	"lockstep/cmd/lockstep/internal/terminal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err))
}

// Exit codes, for scripts.
const (
	exitFailed      = 1 // it ran, and the answer is no
	exitUsage       = 2 // the call or its input is wrong; nothing was changed
	exitUnreachable = 3 // no server, no log or no worker answered
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	}
	return exitFailed
}

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// run is the program: tests call it as main does.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	wrapOutputs(root, out, errOut)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil || err.Error() == "":
	case cmd.Flags().Changed("json"):
		printFailure(root.ErrOrStderr(), err)
	default:
		fmt.Fprintln(root.ErrOrStderr(), "lockstep:", err)
	}
	return err
}

// printFailure says in JSON why a command failed, on standard error: standard
// output has the command's own JSON and nothing else. The answer is a worker's,
// where that is what failed.
func printFailure(errOut io.Writer, err error) {
	failure := struct {
		Error  string          `json:"error"`
		Exit   int             `json:"exit"`
		Answer json.RawMessage `json:"answer,omitempty"`
	}{Error: err.Error(), Exit: exitCode(err)}
	var refused *bus.RemoteError
	if errors.As(err, &refused) && json.Valid(refused.Body) {
		failure.Answer = refused.Body
	}
	_ = json.NewEncoder(errOut).Encode(failure) // texts and valid JSON always encode
}

// wrapOutputs has all that a command writes escaped, wherever it comes from.
func wrapOutputs(root *cobra.Command, out, errOut io.Writer) {
	stdout, stderr := terminal.New(out, errOut)
	root.SetOut(stdout)
	root.SetErr(stderr)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "lockstep",
		Short: "A fleet of workers on NATS that learn and predict in lockstep",
		Long: `Lockstep serves one online-learning model from a fleet of workers on NATS and
keeps training it while it serves. Every worker replays the same JetStream log
into its own model, so all replicas are identical, bit for bit.

Exit codes: 0 done, 1 it ran and the answer is no, 2 the call or its input is
wrong, 3 no server, log or worker could be reached.`,
		Example: `  lockstep demo                     # a server, three workers and 344 penguins, on this machine
  lockstep worker --context prod    # one more worker for the fleet of your nats context
  lockstep status                   # the fleet at a glance`,
		Version:       programVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w\nsee: %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(
		demoCommand(), workerCommand(), predictCommand(), teachCommand(), learnCommand(), statusCommand(),
		replayCommand(), verifyCommand(), snapshotCommand(), compactCommand(), benchCommand(), initCommand(),
		rolesCommand(), doctorCommand(), versionCommand(),
	)
	root.AddCommand(topCommand(), tailCommand(), healthCommand(), manualCommand())
	finishBuiltins(root)
	checkArgs(root)
	return root
}

// checkArgs makes wrong arguments a wrong call to scripts, too.
func checkArgs(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		checkArgs(sub)
	}
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage("%w\nsee: %s --help", err, cmd.CommandPath())
		}
		return nil
	}
}
