package terminal

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"lockstep/cmd/lockstep/internal/printable"
)

// A Bar shows how far long work is, in the last line of a terminal, in
// characters that every font has. One goroutine owns it. A nil Bar shows
// nothing.
type Bar struct {
	screen *screen
	out    io.Writer // not escaped: the bar's own bytes
	width  func() int
	what   string
	total  int64 // negative if no one knows

	done  int64
	drawn time.Time
	shown int // columns of the line that is there now; guarded by screen.mu
}

// barEvery is how often a bar is drawn at most, barWidth how wide it gets.
const (
	barEvery = 50 * time.Millisecond
	barWidth = 30
)

// NewBar begins a bar on w; nil if w is no terminal.
func NewBar(w io.Writer, what string, total int64) *Bar {
	out, ok := w.(*Writer)
	if !ok || !Is(w) {
		return nil
	}
	return &Bar{screen: out.screen, out: out.raw, width: func() int { return Width(w) }, what: what, total: total}
}

// Describe changes what the bar says beside how far it is.
func (b *Bar) Describe(what string) {
	if b != nil {
		b.what = what
	}
}

// Set says how much is done.
func (b *Bar) Set(done int) { b.Set64(int64(done)) }

// Set64 says how much is done.
func (b *Bar) Set64(done int64) {
	if b == nil {
		return
	}
	b.done = done
	if now := time.Now(); now.Sub(b.drawn) >= barEvery {
		b.drawn = now
		b.draw()
	}
}

// Finish takes the bar away. It may be called again.
func (b *Bar) Finish() {
	if b == nil {
		return
	}
	b.screen.mu.Lock()
	defer b.screen.mu.Unlock()
	b.clear()
}

func (b *Bar) draw() {
	b.screen.mu.Lock()
	defer b.screen.mu.Unlock()
	b.screen.bar.clear()
	line := b.line(max(b.width(), 20) - 1) // in the last column some terminals wrap
	b.shown = text.StringWidth(line)
	b.screen.bar = b
	io.WriteString(b.out, line)
}

// clear overwrites the line with spaces, which even a terminal understands
// that knows no escape sequence. The caller holds screen.mu.
func (b *Bar) clear() {
	if b != nil && b.shown > 0 {
		io.WriteString(b.out, "\r"+strings.Repeat(" ", b.shown)+"\r")
		b.shown, b.screen.bar = 0, nil
	}
}

// line is the bar in so many columns: the bar itself is the first to go.
func (b *Bar) line(columns int) string {
	what := printable.Text(b.what)
	count := fmt.Sprintf(" %d", b.done)
	if b.total > 0 {
		count += fmt.Sprintf("/%d", b.total)
	}
	bar := ""
	room := min(barWidth, columns-text.StringWidth(what+count)-3)
	if b.total > 0 && room >= 5 {
		full := int(min(b.done, b.total) * int64(room) / b.total)
		bar = " [" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
	}
	return text.Snip(what+bar+count, columns, "")
}
