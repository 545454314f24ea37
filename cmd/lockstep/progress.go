package main

import (
	"github.com/spf13/cobra"

	"lockstep/cmd/lockstep/internal/terminal"
)

// progress shows how far long work is, on a terminal's standard error; to a
// pipe or a file it shows nothing. The caller finishes it, also on an error.
func progress(cmd *cobra.Command, what string, total int64, wanted bool) *terminal.Bar {
	if !wanted {
		return nil
	}
	return terminal.NewBar(cmd.ErrOrStderr(), what, total)
}
