package terminal

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
)

// lines are those of an output, and fails if one is wider than a terminal.
func lines(t *testing.T, output string, width int) []string {
	t.Helper()
	all := strings.Split(strings.TrimSuffix(output, "\n"), "\n")
	for _, line := range all {
		if got := text.StringWidthWithoutEscSequences(line); width > 0 && got > width {
			t.Errorf("a line has %d columns, want at most %d:\n%s", got, width, output)
			break
		}
	}
	return all
}

func TestTableFits(t *testing.T) {
	t.Parallel()
	table := Table{Columns: []Column{
		{
			Name: "name",
		}, {Name: "count"}, {Name: "none", Rank: 1}, {Name: "some", Rank: 2}, {Name: "more", Rank: 3}, {Name: "note", Rank: 4, Wrap: true},
	}}
	table.Add("a", 1, 0, 7, "xxxxxxxxxxxx", "a note of several words")
	table.Add(strings.Repeat("long", 20)+"\n\x1b", 12345, 0, 0, "xxxxxxxxxxxx", "")
	table.Add("日本語", 1, 0, 0, "", "")
	if got := table.Text(0); strings.Contains(got, "no room") || !strings.Contains(got, `long\n\u001b`) {
		t.Errorf("without a width it is\n%s", got)
	}
	for width := 22; width < 200; width++ {
		lines(t, table.Text(width), width)
	}
	for width, want := range map[int]string{100: "", 60: "(no room for: none, note)", 40: "(no room for: none, some, " +
		"more, note)"} {
		all := lines(t, table.Text(width), width)
		got := ""
		if last := all[len(all)-1]; strings.HasPrefix(last, "(") {
			got = last
		}
		if got != want {
			t.Errorf("on %d columns: %q, want %q", width, got, want)
		}
	}
	table.Plain = true
	table.Rows[0].Colours = text.Colors{text.FgRed}
	lines(t, table.Text(40), 40)
}

// TestBarFits: whatever the width, the bar leaves the last column free.
func TestBarFits(t *testing.T) {
	t.Parallel()
	b := &Bar{what: "teaching, 80.2 % predicted correctly", total: 344, done: 172}
	for width := 20; width < 120; width++ {
		if got := text.StringWidth(b.line(width)); got > width {
			t.Errorf("%d columns, want at most %d: %q", got, width, b.line(width))
		}
	}
	for width, want := range map[int]string{
		79: "teaching, 80.2 % predicted correctly [===============               ] 172/344",
		60: "teaching, 80.2 % predicted correctly [======       ] 172/344",
		45: "teaching, 80.2 % predicted correctly 172/344",
		20: "teaching, 80.2 % pre",
	} {
		if got := b.line(width); got != want {
			t.Errorf("in %d columns: %q, want %q", width, got, want)
		}
	}
	b = &Bar{what: "learning", total: -1, done: 12}
	if got, want := b.line(40), "learning 12"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b = &Bar{what: "learning", total: 10, done: 12}
	if got, want := b.line(79), "learning ["+strings.Repeat("=", barWidth)+"] 12/10"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestBarIsClearedFirst: a line by either output clears the bar.
func TestBarIsClearedFirst(t *testing.T) {
	t.Parallel()
	var both bytes.Buffer
	out, errOut := New(&both, &both)
	bar := &Bar{screen: errOut.screen, out: errOut.raw, width: func() int { return 20 }, what: "x", total: -1}
	for range 2 {
		bar.draw()
		fmt.Fprintln(out, "a")
		bar.draw()
		fmt.Fprintln(errOut.Colours(), "\x1b[1mb")
	}
	bar.draw()
	bar.Finish()
	bar.Finish()
	round := "x 0\r   \ra\nx 0\r   \r\x1b[1mb\n"
	if got, want := both.String(), round+round+"x 0\r   \r"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if bar := NewBar(out, "x", 1); bar != nil {
		t.Error("a bar on what is no terminal")
	}
	var none *Bar
	none.Set(1)
	none.Describe("x")
	none.Finish()
}

func TestWriterEscapes(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	out, _ := New(&b, &b)
	if n, err := fmt.Fprint(out, "a\x1b\n\tb"); n != 5 || err != nil {
		t.Errorf("wrote %d, %v; want all 5", n, err)
	}
	if got, want := b.String(), "a\\u001b\n\tb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if Raw(out) != &b || Raw(&b) != &b || Is(out) || Width(out) != 0 {
		t.Error("a buffer is taken for something else")
	}
}
