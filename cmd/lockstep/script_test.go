package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The tests run the program from outside: testscript puts this test binary
// on the PATH under the name lockstep, where it runs main.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lockstep": main})
}

// processes are the ones that a script started, by the names it gave them.
type processes struct {
	running map[string]*process
}

// process is a program that runs while a script goes on.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error

	mu  sync.Mutex
	out strings.Builder // both outputs; guarded by mu
}

// patience bounds each wait of a script.
const patience = time.Minute

// startProcess runs a program until it prints a line that matches, and
// returns the line's submatches.
func startProcess(dir string, env []string, pattern string, args ...string) (*process, []string, error) {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return nil, nil, err
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	reader, writer := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	if err := p.cmd.Start(); err != nil {
		return nil, nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		writer.Close()
		close(p.done)
	}()
	found := make(chan []string, 1)
	go p.scan(reader, match, found)
	select {
	case groups := <-found:
		return p, groups, nil
	case <-p.done:
		return p, nil, fmt.Errorf("%s ended (%v) before it printed %q:\n%s", args, p.err, pattern, p.output())
	case <-time.After(patience):
		p.cmd.Process.Kill()
		return p, nil, fmt.Errorf("%s did not print %q:\n%s", args, pattern, p.output())
	}
}

func (p *process) scan(reader io.Reader, match *regexp.Regexp, found chan<- []string) {
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		p.mu.Lock()
		fmt.Fprintln(&p.out, lines.Text())
		p.mu.Unlock()
		if groups := match.FindStringSubmatch(lines.Text()); groups != nil {
			select {
			case found <- groups:
			default:
			}
		}
	}
	io.Copy(io.Discard, reader)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// stop sends a signal and waits for the end.
func (p *process) stop(signal os.Signal) error {
	p.cmd.Process.Signal(signal)
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.cmd.Process.Kill()
		return fmt.Errorf("did not end after %v:\n%s", signal, p.output())
	}
}

// scripts runs the scripts of a folder. Besides testscript's own commands
// they have
//
//	start NAME REGEXP PROGRAM ARGS…   run until a line matches; its groups are $NAME_1, $NAME_2, …
//	stop NAME                         SIGTERM; the program must end without an error
//	eventually PROGRAM ARGS…          run again until it succeeds
func scripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			all := &processes{running: map[string]*process{}}
			env.Values["processes"] = all
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/config") // no one's nats context
			env.Setenv("HOME", env.WorkDir)
			env.Defer(func() {
				for _, p := range all.running {
					p.stop(syscall.SIGKILL)
				}
			})
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start":      scriptStart,
			"stop":       scriptStop,
			"eventually": scriptEventually,
		},
	})
}

func all(ts *testscript.TestScript) *processes { return ts.Value("processes").(*processes) }

func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: start NAME REGEXP PROGRAM ARGS…")
	}
	env := append(os.Environ(), "HOME="+ts.Getenv("HOME"), "XDG_CONFIG_HOME="+ts.Getenv("XDG_CONFIG_HOME"))
	p, groups, err := startProcess(ts.Getenv("WORK"), env, args[1], args[2:]...)
	if p != nil {
		all(ts).running[args[0]] = p
	}
	ts.Check(err)
	for i := 1; i < len(groups); i++ {
		ts.Setenv(fmt.Sprintf("%s_%d", args[0], i), groups[i])
	}
}

func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	p := all(ts).running[args[0]]
	if neg || p == nil {
		ts.Fatalf("usage: stop NAME, of a program that was started")
	}
	delete(all(ts).running, args[0])
	if err := p.stop(syscall.SIGTERM); err != nil {
		ts.Fatalf("%s: %v\n%s", args[0], err, p.output())
	}
	ts.Logf("%s", p.output())
}

func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%v: still %v", args, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestScripts(t *testing.T) { scripts(t, "testdata/script") }
