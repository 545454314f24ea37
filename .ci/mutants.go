// Command mutants plants the bugs that mutants.yaml lists, one at a time, each
// in a scratch copy of the module, and runs the test that must find it. It
// fails if one survives, and if the list itself is wrong: a place that is not
// there exactly once, a mutant that does not compile, a test that does not run
// or does not pass without the mutant.
//
//	go run .ci/mutants.go [-only REGEXP] [-json]
//
// The copy is real and no overlay: some of the gates read the source from the
// disk.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// mutant is one entry of the list.
type mutant struct {
	Name string `yaml:"name"`
	File string `yaml:"file"`
	Line string `yaml:"line"` // part of the one line to look in, where from alone is not enough
	From string `yaml:"from"`
	To   string `yaml:"to"`
	Test string `yaml:"test"` // package and flags of go test
	Why  string `yaml:"why"`  // what a user would suffer
}

// result is what became of a mutant.
type result struct {
	Name    string  `json:"name"`
	Killed  bool    `json:"killed"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"` // what is wrong with the entry

	by string // the test that failed
}

const (
	buildTimeout = 5 * time.Minute
	testTimeout  = time.Minute
)

func main() {
	list := flag.String("list", ".ci/mutants.yaml", "the list")
	only := flag.String("only", "", "only the mutants whose name matches this regular expression")
	asJSON := flag.Bool("json", false, "print a JSON list of name, killed and seconds")
	lanes := flag.Int("p", runtime.NumCPU(), "how many at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, *list, *only, *asJSON, max(*lanes, 1))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, list, only string, asJSON bool, lanes int) (ok bool, err error) {
	began := time.Now()
	mutants, err := read(list, only)
	if err != nil {
		return false, err
	}
	lanes = min(lanes, len(mutants))
	scratch, err := os.MkdirTemp("", "lockstep-mutants-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	trees := make(chan string, lanes)
	for i := range lanes {
		tree := filepath.Join(scratch, fmt.Sprint(i))
		if err := os.CopyFS(tree, module{os.DirFS(".")}); err != nil {
			return false, err
		}
		trees <- tree
	}
	say := func(format string, args ...any) {
		if !asJSON {
			fmt.Printf(format+"\n", args...)
		}
	}

	// Without a mutant every test must pass.
	var tests []string
	for _, m := range mutants {
		tests = append(tests, m.Test)
	}
	slices.Sort(tests)
	tests = slices.Compact(tests)
	var byPackage [][]string
	for i, test := range tests {
		if i == 0 || pkg(test) != pkg(tests[i-1]) {
			byPackage = append(byPackage, nil)
		}
		last := len(byPackage) - 1
		byPackage[last] = append(byPackage[last], test)
	}
	sound := each(
		byPackage, trees,
		func(tree string, tests []string) error { return healthy(ctx, tree, tests) },
		func(error) {},
	)
	if err := errors.Join(sound...); err != nil {
		return false, err
	}
	say("%d tests pass without a mutant: %.1f s", len(tests), time.Since(began).Seconds())

	results := each(mutants, trees, func(tree string, m mutant) result { return plant(ctx, tree, m) }, func(r result) {
		switch {
		case r.Error != "":
			say("%-44s ERROR    %5.1f s  %s", r.Name, r.Seconds, r.Error)
		case r.Killed:
			say("%-44s killed   %5.1f s  %s", r.Name, r.Seconds, r.by)
		default:
			say("%-44s SURVIVED %5.1f s", r.Name, r.Seconds)
		}
	})
	killed, wrong := 0, 0
	for _, r := range results {
		if r.Killed {
			killed++
		}
		if r.Error != "" {
			wrong++
		}
	}
	if asJSON {
		out, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return false, err
		}
		fmt.Println(string(out))
	}
	say(
		"%d of %d mutants are killed, %d survived, %d are wrong: %.0f s", killed, len(results),
		len(results)-killed-wrong, wrong, time.Since(began).Seconds(),
	)
	return killed == len(results), ctx.Err()
}

// read reads the list, and checks what can be told from it alone.
func read(path, only string) ([]mutant, error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all, out []mutant
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	names := map[string]bool{}
	for _, m := range all {
		switch {
		case !kebab.MatchString(m.Name) || names[m.Name]:
			return nil, fmt.Errorf("%s: the name %q is not in kebab case, or there twice", path, m.Name)
		case m.File == "" || m.From == "" || m.From == m.To || m.Why == "" || !strings.HasPrefix(m.Test, "./") || !strings.Contains(m.Test, " -run "):
			return nil, fmt.Errorf("%s: %s: file, from, to, test (as in ./model -run TestX) or why is missing", path, m.Name)
		}
		names[m.Name] = true
		if match.MatchString(m.Name) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no mutant has such a name", path)
	}
	return out, nil
}

// module is the tree without what no test needs.
type module struct{ fs.FS }

func (m module) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(m.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return name == "." && strings.HasPrefix(e.Name(), ".") || !e.IsDir() && !e.Type().IsRegular()
	}), err
}

// each does a thing for every item, one in each tree at a time; told is called
// for each result, one at a time.
func each[T, R any](items []T, trees chan string, do func(tree string, item T) R, told func(R)) []R {
	out := make([]R, len(items))
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, item := range items {
		tree := <-trees
		all.Go(func() {
			defer func() { trees <- tree }()
			out[i] = do(tree, item)
			mu.Lock()
			defer mu.Unlock()
			told(out[i])
		})
	}
	all.Wait()
	return out
}

func pkg(test string) string { return strings.Fields(test)[0] }

// healthy wants tests of one package to pass, and each to run something.
func healthy(ctx context.Context, tree string, tests []string) error {
	binary, err := compile(ctx, tree, pkg(tests[0]))
	if err != nil {
		return err
	}
	for _, test := range tests {
		out, err := runTest(ctx, tree, binary, test)
		if err != nil {
			return fmt.Errorf("%s fails without a mutant: %w\n%s", test, err, out)
		}
		if !strings.Contains(out, "--- PASS") {
			return fmt.Errorf("%s runs no test", test)
		}
	}
	return nil
}

// plant puts a mutant into a tree, runs its test, and fixes the tree.
func plant(ctx context.Context, tree string, m mutant) (r result) {
	began := time.Now()
	r.Name = m.Name
	defer func() { r.Seconds = float64(time.Since(began).Milliseconds()) / 1000 }()
	path := filepath.Join(tree, m.File)
	source, err := os.ReadFile(path)
	if err == nil {
		var mutated string
		if mutated, err = m.apply(string(source)); err == nil {
			err = os.WriteFile(path, []byte(mutated), 0o644)
		}
	}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer func() {
		if err := os.WriteFile(path, source, 0o644); err != nil {
			r.Error = err.Error()
		}
	}()
	binary, err := compile(ctx, tree, pkg(m.Test))
	if err != nil {
		r.Error = err.Error()
		return r
	}
	out, err := runTest(ctx, tree, binary, m.Test)
	var exit *exec.ExitError
	failed := regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^(panic: .*)`).FindStringSubmatch(out)
	switch {
	case ctx.Err() != nil:
		r.Error = "interrupted"
	case err == nil:
	case errors.As(err, &exit) && failed != nil:
		r.Killed, r.by = true, failed[1]+failed[2]
	default:
		r.Error = fmt.Sprintf("the test ended otherwise than by failing: %v\n%s", err, out)
	}
	return r
}

// apply replaces the one place that is meant.
func (m mutant) apply(source string) (string, error) {
	before, text, after := "", source, ""
	if m.Line != "" {
		if n := strings.Count(source, m.Line); n != 1 {
			return "", fmt.Errorf("%s has the line %q %d times", m.File, m.Line, n)
		}
		at := strings.Index(source, m.Line)
		begin := strings.LastIndexByte(source[:at], '\n') + 1
		end := at + len(m.Line)
		if n := strings.IndexByte(source[end:], '\n'); n >= 0 {
			end += n
		}
		before, text, after = source[:begin], source[begin:end], source[end:]
	}
	if n := strings.Count(text, m.From); n != 1 {
		return "", fmt.Errorf("%s has %q %d times", m.File, m.From, n)
	}
	return before + strings.Replace(text, m.From, m.To, 1) + after, nil
}

// compile makes a package's test binary.
func compile(ctx context.Context, tree, pkg string) (binary string, err error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	binary = tree + ".test"
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", binary, pkg)
	build.Dir = tree
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not compile: %w\n%s", pkg, err, out)
	}
	return binary, nil
}

// runTest runs a test binary with the flags of an entry.
func runTest(ctx context.Context, tree, binary, test string) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, testTimeout+10*time.Second)
	defer cancel()
	args := []string{"-test.v", "-test.timeout=" + testTimeout.String()}
	for _, arg := range strings.Fields(test)[1:] {
		if flag, ok := strings.CutPrefix(arg, "-"); ok {
			arg = "-test." + flag
		}
		args = append(args, arg)
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = filepath.Join(tree, pkg(test))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
