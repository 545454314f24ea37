package terminal

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"lockstep/cmd/lockstep/internal/printable"
)

// A Table is rows under named columns. On a terminal that is too narrow it
// drops the columns that are missed least, and says which; then it shortens
// texts. Cells are escaped.
type Table struct {
	Columns []Column
	Rows    []Row
	Plain   bool // without borders
}

// Column is what a table has below a name.
type Column struct {
	Name string
	// Of the columns that may go, the one with the highest rank goes first. A
	// column of rank 0 stays. One that says nothing but 0 goes before all.
	Rank int
	Wrap bool // a text that is too long goes on in the next line, and is not cut
}

// Row is a cell for each column, and the colours of them all.
type Row struct {
	Cells   []any
	Colours text.Colors
}

// Add adds a row without colours.
func (t *Table) Add(cells ...any) { t.Rows = append(t.Rows, Row{Cells: cells}) }

// Write writes the table to w, as wide as w is if it is a terminal.
func (t *Table) Write(w io.Writer) { io.WriteString(w, t.Text(Width(w))) }

// Text is the table in at most so many columns of text; 0 is any number.
func (t *Table) Text(width int) string {
	shown, dropped := t.fit(width)
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	if t.Plain {
		w.Style().Options = table.OptionsNoBordersAndSeparators
	}
	header := table.Row{}
	configs := []table.ColumnConfig{}
	for i, c := range shown {
		header = append(header, t.Columns[c.at].Name)
		config := table.ColumnConfig{Number: i + 1, WidthMax: c.width, WidthMaxEnforcer: cut}
		if t.Columns[c.at].Wrap {
			config.WidthMaxEnforcer = text.WrapSoft
		}
		if c.number {
			config.Align, config.AlignHeader = text.AlignRight, text.AlignRight
		}
		configs = append(configs, config)
	}
	w.AppendHeader(header)
	w.SetColumnConfigs(configs)
	for _, row := range t.Rows {
		cells := table.Row{}
		for _, c := range shown {
			cell := cellText(row.Cells[c.at])
			if len(row.Colours) > 0 {
				cell = row.Colours.Sprint(cell)
			}
			cells = append(cells, cell)
		}
		w.AppendRow(cells)
	}
	out := w.Render() + "\n"
	if len(dropped) > 0 {
		out += Wrap("(no room for: "+strings.Join(dropped, ", ")+")", width) + "\n"
	}
	return out
}

func cut(s string, width int) string { return text.Snip(s, width, "…") }

func cellText(cell any) string { return printable.Text(fmt.Sprint(cell)) }

// fitted is a column that is shown.
type fitted struct {
	at     int // in Columns
	width  int
	number bool
}

// A text of more than longText columns is shortened before a column goes, and
// none to less than shortText.
const (
	longText  = 24
	shortText = 5
)

// fit picks the columns to show in a width, and names those it does not.
func (t *Table) fit(width int) (shown []fitted, dropped []string) {
	for at, c := range t.Columns {
		f := fitted{at: at, width: text.StringWidth(c.Name), number: len(t.Rows) > 0}
		for _, row := range t.Rows {
			f.width = max(f.width, text.StringWidth(cellText(row.Cells[at])))
			f.number = f.number && isNumber(row.Cells[at])
		}
		shown = append(shown, f)
	}
	if width <= 0 {
		return shown, nil
	}
	t.shorten(shown, width, longText)
	var gone []int
	for t.total(shown) > width {
		first := slices.MaxFunc(shown, func(a, b fitted) int { return cmp.Compare(t.rank(a), t.rank(b)) })
		if t.rank(first) == 0 {
			break
		}
		shown = slices.DeleteFunc(shown, func(f fitted) bool { return f.at == first.at })
		gone = append(gone, first.at)
	}
	t.shorten(shown, width, shortText)
	slices.Sort(gone)
	for _, at := range gone {
		dropped = append(dropped, t.Columns[at].Name)
	}
	return shown, dropped
}

// shorten takes columns of text from the widest ones, down to least, until
// the table fits.
func (t *Table) shorten(shown []fitted, width, least int) {
	for t.total(shown) > width {
		widest := -1
		for i, f := range shown {
			if !f.number && f.width > least && (widest < 0 || f.width > shown[widest].width) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		shown[widest].width--
	}
}

// rank is how soon a column goes.
func (t *Table) rank(f fitted) int {
	c := t.Columns[f.at]
	silent := c.Rank > 0 && len(t.Rows) > 0
	for _, row := range t.Rows {
		silent = silent && fmt.Sprint(row.Cells[f.at]) == "0"
	}
	if silent {
		return c.Rank + len(t.Columns)
	}
	return c.Rank
}

// total is the width of a table: a space at each side of a cell, and borders.
func (t *Table) total(shown []fitted) int {
	total := 0
	for _, f := range shown {
		total += f.width + 2
	}
	if !t.Plain {
		total += len(shown) + 1
	}
	return total
}

func isNumber(cell any) bool {
	switch cell.(type) {
	case int, int64, uint64, int32, uint32, float64:
		return true
	}
	return false
}
