package term

import (
	"strings"
	"sync"
	"time"

	"github.com/clipperhouse/displaywidth"

	"banger/internal/op"
)

// Board shows several operations at once: on a terminal a line each, redrawn in place and gone in the
// end; elsewhere a line for each stage that is over, behind the name. Everything goes to IO.Err.
type Board struct {
	update func(i int, o op.Operation)
	end    func(i int)
	close  func()
}

// NewBoard returns a board with a line for each name. Its methods may be called concurrently.
func NewBoard(s *IO, names []string) *Board {
	if !s.ErrTTY || s.Dumb {
		return plainBoard(s, names)
	}
	return liveBoard(s, names)
}

// Update shows the operation on the i-th name as it is now.
func (b *Board) Update(i int, o op.Operation) { b.update(i, o) }

// End takes the i-th line away: what became of it is told elsewhere.
func (b *Board) End(i int) { b.end(i) }

// Close ends the drawing.
func (b *Board) Close() { b.close() }

func plainBoard(s *IO, names []string) *Board {
	var mu sync.Mutex
	each := make([]plainStages, len(names))
	for i, name := range names {
		each[i] = plainStages{w: s.Err, prefix: Escape(name) + ": "}
	}
	return &Board{
		update: func(i int, o op.Operation) {
			mu.Lock()
			defer mu.Unlock()
			each[i].update(o)
		},
		end:   func(int) {},
		close: func() {},
	}
}

// boardNames bounds the column of names.
const boardNames = 32

// row is one line of a live board.
type row struct {
	name string
	op   op.Operation // the zero value while it waits for its turn
	over bool
}

func liveBoard(s *IO, names []string) *Board {
	rows := make([]row, len(names))
	for i, name := range names {
		rows[i].name = Escape(name)
	}
	p := s.ErrPalette()
	live := &screen{w: s.Err, size: s.Size, lines: func(now time.Time, tick, columns, most int) []string {
		return boardLines(rows, now, tick, p, columns, most)
	}}
	stop := live.animate()
	return &Board{
		update: func(i int, o op.Operation) { live.change(func() { rows[i].op = o }) },
		end:    func(i int) { live.change(func() { rows[i].over = true }) },
		close: func() {
			live.change(func() {
				for i := range rows {
					rows[i].over = true
				}
			})
			stop()
		},
	}
}

// boardLines renders those that are not over, in their order. Where there is no room for all, those that wait
// for their turn give way.
func boardLines(rows []row, now time.Time, tick int, p Palette, columns, most int) []string {
	width, left, waiting := 0, 0, 0
	for _, r := range rows {
		width = max(width, displaywidth.String(r.name))
		if r.over {
			continue
		}
		left++
		if r.op.ID == "" {
			waiting++
		}
	}
	hidden := min(waiting, max(0, left-most))
	var lines []string
	for _, r := range rows {
		if r.over {
			continue
		}
		if r.op.ID == "" && hidden > 0 {
			hidden--
			continue
		}
		lines = append(lines, r.line(now, tick, p, min(width, boardNames), columns))
	}
	return lines[:min(len(lines), most)]
}

// line is one VM's: its name, how long it has taken so far, and the stage that it is in.
func (r row) line(now time.Time, tick int, p Palette, nameWidth, columns int) string {
	mark, took, doing := p.Dim("·"), "", "waits for its turn"
	if r.op.ID != "" {
		mark, took, doing = p.Cyan(spinner(tick)), Duration(now.Sub(r.op.Created)), current(r.op)
	}
	room := max(0, columns-1-4) // beside the mark; a line that fills the last column would wrap
	name := displaywidth.TruncateString(r.name, min(nameWidth, room), "…")
	line := "  " + mark + " " + name
	took = strings.Repeat(" ", max(0, 13-len(took))) + took
	if room -= nameWidth + len(took); room < 0 {
		return line
	}
	line += strings.Repeat(" ", nameWidth-displaywidth.String(name)) + p.Dim(took)
	if room -= 2; doing != "" && room > 4 {
		line += "  " + p.Dim(displaywidth.TruncateString(doing, room, "…"))
	}
	return line
}

// current names the stages that have begun and not ended, with what the last of them is doing.
func current(o op.Operation) string {
	var names []string
	detail := ""
	for _, st := range o.Stages {
		if !st.Done {
			names, detail = append(names, Escape(st.Name)), Escape(st.Detail)
		}
	}
	text := strings.Join(names, ", ")
	if detail != "" {
		text += ": " + detail
	}
	return text
}
