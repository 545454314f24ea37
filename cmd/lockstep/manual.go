package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func manualCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages, one a command, into a folder",
		Hidden: true, // for who packs the program
		Long: `Man writes lockstep.1, lockstep-worker.1 and so on into a folder, which it makes.
The date in them is SOURCE_DATE_EPOCH, if that is set, or today.`,
		Example: "  lockstep man /usr/local/share/man/man1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			cmd.Root().DisableAutoGenTag = true
			return doc.GenManTree(
				cmd.Root(),
				&doc.GenManHeader{Title: "LOCKSTEP", Section: "1", Source: "lockstep " + programVersion(), Manual: "Lockstep"},
				args[0],
			)
		},
	}
}

// finishBuiltins has cobra's own commands, help and completion, refuse what
// they do not know; by themselves they print a usage and succeed.
func finishBuiltins(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = knownCommand
		case "completion":
			cmd.Args = cobra.NoArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// knownCommand is the arguments of help: the way to a command.
func knownCommand(help *cobra.Command, args []string) error {
	_, rest, err := help.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return fmt.Errorf(
			"there is no command %q, and so no help for it",
			strings.Join(append([]string{help.Root().Name()}, args...), " "),
		)
	}
	return nil
}
