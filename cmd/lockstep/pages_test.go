package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are the repository's pages, from its root.
var pages = []string{
	"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md",
	"model/README.md", "worker/README.md", "deploy/README.md",
}

// readPages returns the pages by name.
func readPages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, name := range pages {
		texts[name] = readFile(t, filepath.Join("../..", name))
	}
	return texts
}

// TestPagesLinks follows each link of a page to a file of the repository, and
// to the heading in it.
func TestPagesLinks(t *testing.T) {
	texts := readPages(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages {
		for _, found := range link.FindAllStringSubmatch(texts[page], -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(found[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			data, err := os.ReadFile(filepath.Join("../..", target))
			switch {
			case err != nil && path != "":
				if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
					t.Errorf("%s links to %s, which does not exist", page, found[1])
				}
			case anchor != "" && !slices.Contains(anchors(string(data)), anchor):
				t.Errorf("%s links to %s; %s has no such heading", page, found[1], target)
			}
		}
	}
}

// anchors are the names that a Markdown page's headings get.
func anchors(page string) []string {
	var out []string
	for _, line := range strings.Split(page, "\n") {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading), "")
			out = append(out, strings.ReplaceAll(kept, " ", "-"))
		}
	}
	return out
}

// TestPagesNameTests looks for each test that a page names as what shows
// something.
func TestPagesNameTests(t *testing.T) {
	known := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	walkGo(t, func(path string, source string) {
		if strings.HasSuffix(path, "_test.go") {
			for _, found := range declaration.FindAllStringSubmatch(source, -1) {
				known[found[1]] = true
			}
		}
	})
	for page, text := range readPages(t) { // order: each page is looked at by itself
		for _, found := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(text, -1) {
			if !known[found[1]] {
				t.Errorf("%s names %s, and there is no such test", page, found[1])
			}
		}
	}
}

func walkGo(t *testing.T, visit func(path, source string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		data, err := os.ReadFile(path)
		visit(path, string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPagesCommands takes each command that a page shows. Those of lockstep
// must parse, those of just must be recipes; and a test must run it (a script
// of testdata or a stage of CI), or testdata/pages/not-run.txt must say why
// none does.
func TestPagesCommands(t *testing.T) {
	run, listed := commandsRun(t), commandsNotRun(t)
	recipes := regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*)[^:\n]*:(?:[^=]|$)`).
		FindAllStringSubmatch(readFile(t, "../../Justfile"), -1)
	texts := readPages(t)
	t.Chdir(t.TempDir())            // a flag without its value takes --help for it, and the command runs
	for page, text := range texts { // order: each page is looked at by itself
		for _, command := range commandsShown(text) {
			words := strings.Fields(command)
			switch words[0] {
			case "lockstep":
				if err := parses(words[1:]); err != nil {
					t.Errorf("%s: %s: %v", page, command, err)
				}
			case "just":
				if len(words) > 1 && !slices.ContainsFunc(recipes, func(r []string) bool { return r[1] == words[1] }) {
					t.Errorf("%s: %s: there is no such recipe", page, command)
				}
			}
			_, why := listed[command]
			listed[command] = true
			if !why && !run[command] {
				t.Errorf("%s: no test runs it, and testdata/pages/not-run.txt does not list it: %s", page, command)
			}
		}
	}
	for command, used := range listed { // order: each is reported by itself
		if !used {
			t.Errorf("testdata/pages/not-run.txt lists what no page shows: %s", command)
		}
	}
}

// shown finds commands in the code blocks and code spans of a page.
var (
	programs     = `(?:lockstep|nats|just|go|curl|bash|\.ci/\w+)`
	shownInBlock = regexp.MustCompile(`(?m)^    (?:\$ )?(` + programs + `(?: .*)?)$`)
	shownInSpan  = regexp.MustCompile("`(" + programs + " [^`\n]+(?:\n[^`\n]+)?)`")
	address      = regexp.MustCompile(` -s (?:nats://\S+|\$demo_1)|\$page_1|(?:http://)?127\.0\.0\.1:8080`)
	comment      = regexp.MustCompile(`\s+#.*`)
)

func commandsShown(page string) []string {
	page = strings.ReplaceAll(page, "\\\n", " ")
	var out []string
	for _, pattern := range []*regexp.Regexp{shownInBlock, shownInSpan} {
		for _, found := range pattern.FindAllStringSubmatch(page, -1) {
			out = append(out, plainCommand(found[1]))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// plainCommand is a command without its comment and the address that it goes
// to, which a test replaces by its own.
func plainCommand(command string) string {
	command = address.ReplaceAllString(comment.ReplaceAllString(command, ""), " ")
	command = strings.Replace(command, "go run ./cmd/lockstep", "lockstep", 1)
	return strings.Join(strings.Fields(command), " ")
}

// commandsRun are the commands of the scripts in testdata and of CI's stages.
func commandsRun(t *testing.T) map[string]bool {
	t.Helper()
	run := map[string]bool{}
	line := regexp.MustCompile(`(?m)^(?:! )?(?:exec|eventually|start \S+ '[^']*') (.*)$`)
	scripts, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		for _, found := range line.FindAllStringSubmatch(readFile(t, script), -1) {
			run[plainCommand(found[1])] = true
		}
	}
	ci := readFile(t, "../../.ci/run")
	for _, found := range regexp.MustCompile(`(?m)^stage \S+ (.*)$`).FindAllStringSubmatch(ci, -1) {
		run[plainCommand(found[1])] = true
	}
	return run
}

// commandsNotRun are the commands that no test runs. In the file a line that
// is not indented says why the ones below it are not run.
func commandsNotRun(t *testing.T) map[string]bool {
	t.Helper()
	listed := map[string]bool{}
	reason := ""
	for _, line := range strings.Split(readFile(t, "testdata/pages/not-run.txt"), "\n") {
		switch command, indented := strings.CutPrefix(line, "    "); {
		case strings.TrimSpace(line) == "":
		case !indented:
			reason = line
		case reason == "":
			t.Errorf("testdata/pages/not-run.txt gives no reason for: %s", command)
		default:
			listed[command] = false
		}
	}
	return listed
}

// parses reports whether lockstep takes a call, by asking for its help.
func parses(args []string) error {
	for i, arg := range args {
		args[i] = strings.Trim(arg, `'"`)
	}
	if i := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "{") }); i >= 0 {
		args = args[:i] // a row as JSON, which may hold spaces
	}
	var help strings.Builder
	if err := run(context.Background(), append(args, "--help"), strings.NewReader(""), &help, io.Discard); err != nil {
		return err
	}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") && !strings.Contains(help.String(), "lockstep "+args[0]) {
		return fmt.Errorf("lockstep has no command %q", args[0])
	}
	return nil
}

// TestPlainCommand shows what counts as the same command.
func TestPlainCommand(t *testing.T) {
	for given, want := range maps.All(map[string]string{
		"lockstep status                  # the fleet":         "lockstep status",
		"nats -s nats://127.0.0.1:4222 req a.b '' --replies=0": "nats req a.b '' --replies=0",
		"nats -s $demo_1 req a.b '' --replies=0":               "nats req a.b '' --replies=0",
		"go run ./cmd/lockstep demo      # a server":           "lockstep demo",
		"curl -s 127.0.0.1:8080/predict --json '{}'":           "curl -s /predict --json '{}'",
		"curl -s $page_1/predict --json '{}'":                  "curl -s /predict --json '{}'",
	}) { // order: each is looked at by itself
		if got := plainCommand(given); got != want {
			t.Errorf("plainCommand(%q) = %q, want %q", given, got, want)
		}
	}
}
