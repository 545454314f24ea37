package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// progress shows how far long work is, on a terminal's standard error; to a
// pipe or a file it shows nothing.
func progress(cmd *cobra.Command, what string, total int64, wanted bool) *progressbar.ProgressBar {
	out := cmd.ErrOrStderr()
	if f, ok := out.(*os.File); !wanted || !ok || !term.IsTerminal(int(f.Fd())) {
		out = io.Discard
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionSetTheme(progressbar.ThemeUnicode),
		progressbar.OptionOnCompletion(func() { io.WriteString(out, "\n") }),
	)
}
