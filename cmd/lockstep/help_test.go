package main

import (
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls do for each command of the program.
func everyCommand(root *cobra.Command, do func(*cobra.Command)) {
	do(root)
	for _, sub := range root.Commands() {
		everyCommand(sub, do)
	}
}

// goName is an identifier of Go's code, or what a formatted print leaves of a
// mistake. People's names of things begin with a capital, or are quoted.
var goName = regexp.MustCompile(`\b[a-z][a-z0-9]*[A-Z]\w*|%!\w|\bnil\b|\b(string|uint64|int64|float64)\b`)

// sentenceStart is where a sentence begins after another.
var sentenceStart = regexp.MustCompile(`[a-z)]\. ([a-z]\w*)`)

// TestHelpReads: all help is sentences for people. (A renaming in the code once
// changed a sentence, too.)
func TestHelpReads(t *testing.T) {
	t.Parallel()
	everyCommand(newRoot(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if strings.HasPrefix(path, "lockstep completion") || path == "lockstep help" {
			return // the library's
		}
		prose := map[string]string{"short": cmd.Short, "long": cmd.Long}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { prose["--"+f.Name] = f.Usage })
		for place, text := range prose {
			if found := goName.FindString(text); found != "" {
				t.Errorf("%s, %s: %q is no word: %s", path, place, found, text)
			}
			if found := sentenceStart.FindStringSubmatch(strings.ReplaceAll(text, "\n", " ")); found != nil {
				t.Errorf("%s, %s: a sentence begins with %q: %s", path, place, found[1], text)
			}
			if strings.Contains(strings.TrimSpace(text), "  ") || strings.TrimSpace(text) != text {
				t.Errorf("%s, %s: spaces too many: %q", path, place, text)
			}
		}
		if first := []rune(cmd.Short + " ")[0]; !unicode.IsUpper(first) || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short help is to begin with a capital, and to have no full stop: %q", path, cmd.Short)
		}
		for _, paragraph := range strings.Split(cmd.Long, "\n\n") {
			if paragraph != "" && !strings.ContainsAny(paragraph[len(paragraph)-1:], ".:") {
				t.Errorf("%s: a paragraph has no end: %q", path, paragraph)
			}
		}
		for line := range strings.Lines(cmd.Long) {
			if columns := len([]rune(strings.TrimSuffix(line, "\n"))); columns > 90 {
				t.Errorf("%s: a line of help has %d columns: %s", path, columns, line)
			}
		}
	})
}
