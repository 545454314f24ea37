// Package terminal writes for people: what a command prints, a progress bar
// that never shares a line with it, and tables that fit.
package terminal

import (
	"io"
	"os"
	"strings"
	"sync"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"

	"lockstep/cmd/lockstep/internal/printable"
)

// A Writer is where a command writes. Whatever it is given, a terminal gets
// only what printable.Lines leaves of it. Any goroutine may write.
type Writer struct {
	raw    io.Writer
	screen *screen
}

// screen is what both outputs of a program share: on a terminal they are one.
type screen struct {
	mu  sync.Mutex
	bar *Bar // that is shown now; guarded by mu
}

// New is the two outputs of a program. While one of them shows a progress
// bar, a line that comes by either of them clears it first.
func New(out, errOut io.Writer) (*Writer, *Writer) {
	s := &screen{}
	return &Writer{out, s}, &Writer{errOut, s}
}

// Write writes p, escaped. A character that is split between two writes is
// shown byte by byte.
func (w *Writer) Write(p []byte) (int, error) {
	w.screen.mu.Lock()
	defer w.screen.mu.Unlock()
	w.screen.bar.clear()
	if _, err := io.WriteString(w.raw, printable.Lines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Colours is w for who writes colours, and escapes what strangers wrote by
// itself.
func (w *Writer) Colours() io.Writer { return unescaped{w} }

type unescaped struct{ *Writer }

func (u unescaped) Write(p []byte) (int, error) {
	u.screen.mu.Lock()
	defer u.screen.mu.Unlock()
	u.screen.bar.clear()
	return u.raw.Write(p)
}

// Raw is what a Writer writes to, for bytes that are no text; any other
// writer is its own.
func Raw(w io.Writer) io.Writer {
	if w, ok := w.(*Writer); ok {
		return w.raw
	}
	return w
}

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := Raw(w).(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Width is how many columns a terminal has; 0 if w is none, or does not say.
func Width(w io.Writer) int {
	f, ok := Raw(w).(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Wrap breaks a sentence into lines of at most width columns, between words
// where it can; a width of 0 leaves it as it is.
func Wrap(sentence string, width int) string {
	if width <= 0 {
		return sentence
	}
	lines := strings.Split(text.WrapSoft(sentence, width), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
