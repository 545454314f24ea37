//go:build !windows

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"github.com/nats-io/nats.go"

	"lockstep/model"
)

// tty is a terminal: a pseudo-terminal, and an emulator that draws what
// comes out of it.
type tty struct {
	t    *testing.T
	side *os.File // the program's
	far  *os.File // the emulator's
	done chan struct{}

	mu   sync.Mutex
	vt   *vt.Emulator // guarded by mu
	raw  bytes.Buffer // guarded by mu
	seen func(screen string)
}

// openTTY makes one, with rows enough that nothing scrolls away. Seen, if it
// is not nil, is called with each state of the screen.
func openTTY(t *testing.T, columns int, seen func(screen string)) *tty {
	t.Helper()
	const rows = 70
	far, side, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(side, &pty.Winsize{Rows: rows, Cols: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	s := &tty{t: t, side: side, far: far, done: make(chan struct{}), vt: vt.NewEmulator(columns, rows), seen: seen}
	go io.Copy(far, s.vt) // a program asks a terminal what it is
	go s.draw()
	t.Cleanup(func() {
		side.Close()
		<-s.done
		// The emulator's own Close writes what its Read reads beside it.
		if input, ok := s.vt.InputPipe().(io.Closer); ok {
			input.Close()
		}
		far.Close()
	})
	return s
}

func (s *tty) draw() {
	defer close(s.done)
	for buf := make([]byte, 256); ; {
		n, err := s.far.Read(buf)
		if err != nil { // EIO: the program's side is closed
			return
		}
		s.mu.Lock()
		s.raw.Write(buf[:n])
		s.vt.Write(buf[:n])
		s.mu.Unlock()
		if s.seen != nil {
			s.seen(s.screen())
		}
	}
}

// screen is what a person sees, without the spaces at the lines' ends.
func (s *tty) screen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := strings.Split(s.vt.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// run runs the program on it, and returns what is on the screen in the end.
func (s *tty) run(ctx context.Context, args ...string) (string, error) {
	err := run(ctx, args, s.side, s.side, s.side)
	s.side.Close()
	<-s.done
	return s.screen(), err
}

// await waits until a program that goes on has drawn testdata/screens/NAME.txt.
func (s *tty) await(name string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		screen := s.screen()
		switch {
		case *updateScreens && regexp.MustCompile(`predictions/s(.|\n)*q: leave`).MatchString(screen):
			time.Sleep(time.Second) // a person looks at the diff
			compareScreen(s.t, name, s.screen())
			return
		case !*updateScreens && unchanging(screen) == readFile(s.t, "testdata/screens/"+name+".txt"):
			return
		case time.Now().After(deadline):
			compareScreen(s.t, name, screen)
			return
		}
	}
}

// changing is what is another in each run, and what stands for it, as wide.
var changing = []struct{ pattern, word string }{
	{`\b[0-9a-f]{12}\b`, "HHHHHHHHHHHH"},
	{`\d\d\d\d-\d\d-\d\d`, "DDDD-DD-DD"},
	{`\d\d:\d\d:\d\d`, "TT:TT:TT"},
	{`127\.0\.0\.1:\d+`, "127.0.0.1:PORT"},
	{`(in )\S+lockstep-demo-\d+`, "${1}STORE"},
	{`\d+ predictions/s, \d+ events learned`, "N predictions/s, M events learned"},
	{`\b\ds\b`, "Ns"},
}

var updateScreens = flag.Bool("update", false, "write what the screens show now to testdata/screens")

// unchanging is a screen with words in the place of what changes.
func unchanging(screen string) string {
	for _, c := range changing {
		screen = regexp.MustCompile(c.pattern).ReplaceAllString(screen, c.word)
	}
	return screen
}

// compareScreen compares what a screen shows with testdata/screens/NAME.txt.
func compareScreen(t *testing.T, name, screen string) {
	t.Helper()
	screen = unchanging(screen)
	path := "testdata/screens/" + name + ".txt"
	if *updateScreens {
		if err := os.WriteFile(path, []byte(screen), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := readFile(t, path); screen != want {
		t.Errorf("%s: the screen is\n%s\nwant\n%s", name, screen, want)
	}
}

// TestDemoOnATerminal: the progress bar has the last line for itself, and is
// gone before anything else is printed there; the table fits.
func TestDemoOnATerminal(t *testing.T) {
	bar := regexp.MustCompile(`^teaching, +[\d.]+ % predicted correctly( \[=* *\])? \d+/344$`)
	bars := map[string]bool{}
	var shared []string
	s := openTTY(t, 80, func(screen string) {
		for line := range strings.Lines(screen) {
			line = strings.TrimSuffix(line, "\n")
			if !strings.Contains(line, "teaching") {
				continue
			}
			// Half of a bar may have come so far.
			if bar.MatchString(line) {
				bars[line] = true
			} else if strings.Contains(line, "after") {
				shared = append(shared, line)
			}
		}
	})
	screen, err := s.run(t.Context(), "demo", "--once", "--port", "0")
	if err != nil {
		t.Fatal(err)
	}
	if len(bars) == 0 {
		t.Errorf("no bar was seen; the terminal got %q", s.raw.String())
	}
	for _, line := range shared {
		t.Errorf("the bar shares its line: %q", line)
	}
	compareScreen(t, "demo-80", screen)
}

// TestScreens: what commands show on terminals of several widths, and on
// none. With -update it writes them again; read the diff.
func TestScreens(t *testing.T) {
	f := newShownFleet(t, model.DefaultSpec())
	f.teach(t, "penguins",
		`{"attributes":`+shownRow+`,"species":"Gentoo"}`,
		`{"attributes":`+shownRow+`,"species":"Adelie"}`)
	f.snapshot(t, "penguins")
	awaitFleet(t, f.nc, 1, 4, 0)
	for _, command := range []string{"status", "snapshot ls", "tail --follow=false"} {
		args := append(strings.Fields(command), "-s", f.url)
		for _, columns := range []int{40, 80, 200} {
			screen, err := openTTY(t, columns, nil).run(t.Context(), args...)
			if err != nil {
				t.Error(err)
			}
			compareScreen(t, fmt.Sprint(args[0], "-", columns), screen)
		}
		var out bytes.Buffer
		if err := run(t.Context(), args, nil, &out, &out); err != nil {
			t.Error(err)
		}
		compareScreen(t, args[0]+"-piped", out.String())
	}
}

// TestTopOnATerminal: it draws the fleet in what room there is, escapes what
// strangers say, and leaves.
func TestTopOnATerminal(t *testing.T) {
	f := newShownFleet(t, model.DefaultSpec())
	f.teach(t, "penguins", `{"attributes":`+shownRow+`,"species":"Gentoo"}`)
	evil := quoted(t, hostile)
	hash := strings.Repeat("ab", 32)
	named := `{"replica":"evil","state":"quarantined","advisory":` + evil + `,"contract":"` + hash + `","encoding":"e","log_chain":"` + hash +
		`","state_chain":"` + hash + `","digest":"` + hash + `"}`
	unnamed := `{"replica":` + evil + `,"state":"quarantined","digest":` + evil + `}`
	for _, status := range []string{named, unnamed} {
		if _, err := f.nc.Conn.Subscribe("penguins.status", func(msg *nats.Msg) { _ = msg.Respond([]byte(status)) }); err != nil {
			t.Fatal(err)
		}
	}
	top := func(columns int) (raw string) {
		s := openTTY(t, columns, nil)
		ended := make(chan error, 1)
		go func() {
			_, err := s.run(t.Context(), "top", "-s", f.url, "--interval", "100ms")
			ended <- err
		}()
		s.await(fmt.Sprint("top-", columns))
		if _, err := s.far.WriteString("q"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return s.raw.String()
	}
	red := regexp.MustCompile(`\x1b\[[0-9;]*\b31\b`)
	for _, columns := range []int{40, 80, 200} {
		raw := top(columns)
		if !red.MatchString(raw) || strings.Contains(raw, "owned\a") {
			t.Errorf("on %d columns: not in red, or what a stranger said was obeyed: %q", columns, raw)
		}
	}
	t.Setenv("NO_COLOR", "1")
	if raw := top(80); red.MatchString(raw) {
		t.Errorf("coloured although NO_COLOR is set: %q", raw)
	}
}

// TestLearnOnATerminal: no line of what is refused shares the bar's.
func TestLearnOnATerminal(t *testing.T) {
	f := newShownFleet(t, model.DefaultSpec())
	var file strings.Builder
	const rows, every = 40_000, 4_000 // of which one is refused
	for i := range rows {
		if i%every == every-1 {
			fmt.Fprintln(&file, `{"attributes":{},"species":"Adelie"}`)
		}
		fmt.Fprintln(&file, `{"attributes":`+strings.Replace(shownRow, "4500", fmt.Sprint(i), 1)+`,"species":"Gentoo"}`)
	}
	path := filepath.Join(t.TempDir(), "penguins.jsonl")
	if err := os.WriteFile(path, []byte(file.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	bars, shared := 0, ""
	s := openTTY(t, 80, func(screen string) {
		for line := range strings.Lines(screen) {
			switch {
			case !strings.Contains(line, "learning "):
			case strings.Contains(line, "refused"), strings.Contains(line, "stored"), strings.Contains(line, "Field"):
				shared = line
			default:
				bars++
			}
		}
	})
	screen, err := s.run(t.Context(), "learn", path, "-s", f.url)
	if err == nil || bars == 0 || shared != "" || strings.Contains(screen, "learning ") {
		t.Errorf("%v; %d bars were seen; shared with: %q; in the end\n%s", err, bars, shared, screen)
	}
	if got, want := strings.Count(s.raw.String(), " is refused"), rows/every; got != want {
		t.Errorf("%d lines say that they are refused, want %d", got, want)
	}
}

// TestLogOnATerminal: colours only where there are any.
func TestLogOnATerminal(t *testing.T) {
	for _, noColour := range []string{"", "1"} {
		t.Setenv("NO_COLOR", noColour)
		s := openTTY(t, 80, nil)
		root := newRoot()
		wrapOutputs(root, s.side, s.side)
		logger(root.ErrOrStderr(), slog.LevelInfo).Warn("a line", "name", hostile)
		s.side.Close()
		<-s.done
		if got, want := strings.Contains(s.raw.String(), "\x1b["), noColour == ""; got != want {
			t.Errorf("NO_COLOR=%s: coloured %v, want %v: %q", noColour, got, want, s.raw.String())
		}
		if strings.Contains(s.raw.String(), "owned\a") || !strings.Contains(s.screen(), `u0007`) {
			t.Errorf("what a stranger said was obeyed: %q", s.raw.String())
		}
	}
}
