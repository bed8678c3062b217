package term

import (
	"fmt"
	"io"
	"strings"

	"github.com/clipperhouse/displaywidth"
)

// Cell is one field of a table: text as it came, which the table escapes, and how to colour it.
type Cell struct {
	Text  string
	Style func(string) string // nil leaves it plain
}

// Text returns a plain cell.
func Text(s string) Cell { return Cell{Text: s} }

// Table writes rows under a heading, columns aligned by what they measure on a terminal.
func Table(w io.Writer, p Palette, heading []string, rows [][]Cell) {
	head := make([]Cell, len(heading))
	for i, h := range heading {
		head[i] = Cell{h, p.Dim}
	}
	columns(w, append([][]Cell{head}, rows...), "   ")
}

// Fields writes name and value pairs, one a line, values aligned. Pairs with an empty value are left out.
func Fields(w io.Writer, p Palette, pairs ...Cell) {
	var rows [][]Cell
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1].Text != "" {
			rows = append(rows, []Cell{{pairs[i].Text, p.Dim}, pairs[i+1]})
		}
	}
	Rows(w, rows)
}

// Rows writes rows without a heading, columns aligned.
func Rows(w io.Writer, rows [][]Cell) { columns(w, rows, "  ") }

func columns(w io.Writer, rows [][]Cell, gap string) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], displaywidth.String(Escape(c.Text)))
		}
	}
	var all strings.Builder // written at once: a table may have a thousand rows
	for _, row := range rows {
		var b strings.Builder
		for i, c := range row {
			text := Escape(c.Text)
			pad := strings.Repeat(" ", widths[i]-displaywidth.String(text)) + gap
			if c.Style != nil {
				text = c.Style(text)
			}
			b.WriteString(text)
			if i < len(row)-1 {
				b.WriteString(pad)
			}
		}
		all.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	}
	fmt.Fprint(w, all.String())
}
