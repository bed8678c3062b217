package term

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/clipperhouse/displaywidth"

	"banger/internal/op"
)

// frameInterval is slow enough to cost nothing and fast enough for tenths of a second to run.
const frameInterval = 100 * time.Millisecond

// Follow shows an operation's stages while follow runs. On a terminal they are redrawn in place with
// their running times; elsewhere each finished stage is one line. Everything goes to s.Err, so that
// s.Out holds results only. It returns what follow returns.
func Follow(ctx context.Context, s *IO, follow func(context.Context, func(op.Operation)) (op.Operation, error)) (op.Operation, error) {
	if !s.ErrTTY || s.Dumb {
		plain := plainStages{w: s.Err, said: map[string]bool{}}
		return follow(ctx, plain.update)
	}
	live := &liveStages{w: s.Err, palette: s.ErrPalette(), size: s.Size}
	stop := live.animate()
	defer stop()
	return follow(ctx, live.update)
}

// plainStages prints each stage once, when it is over.
type plainStages struct {
	w    io.Writer
	said map[string]bool
}

func (p *plainStages) update(o op.Operation) {
	for _, st := range o.Stages {
		word := ""
		switch {
		case p.said[st.Name]:
		case st.Done:
			word = "done"
		case o.State.Ended():
			word = string(o.State)
		}
		if word == "" {
			continue
		}
		p.said[st.Name] = true
		fmt.Fprintf(p.w, "%s … %s %s\n", Escape(st.Name), word, Duration(elapsed(st, o, o.Ended)))
	}
}

// liveStages redraws a block of lines in place. Each redraw is one write inside a synchronized
// update, so that no terminal shows a half-drawn block.
type liveStages struct {
	w       io.Writer
	palette Palette
	size    func() (columns, rows int)

	mu    sync.Mutex
	op    op.Operation
	tick  int
	drawn int // lines on the screen
}

func (l *liveStages) update(o op.Operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.op = o
	l.draw()
}

// animate redraws until the returned function is called, which leaves the last block standing.
func (l *liveStages) animate() (stop func()) {
	fmt.Fprint(l.w, hideCursor)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(frameInterval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
			l.mu.Lock()
			l.tick++
			l.draw()
			l.mu.Unlock()
		}
	}()
	return func() {
		close(quit)
		<-done
		fmt.Fprint(l.w, "\r\x1b[J"+showCursor) // what a typed Ctrl-C left behind goes too
	}
}

const (
	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	beginUpdate = "\x1b[?2026h"
	endUpdate   = "\x1b[?2026l"
)

func (l *liveStages) draw() {
	columns, rows := l.size()
	lines := frame(l.op, time.Now(), l.tick, l.palette, columns)
	if len(lines) == 0 {
		return
	}
	// What has scrolled away cannot be redrawn. The cursor needs a row too.
	lines = lines[max(0, len(lines)-max(1, rows-1)):]
	var b strings.Builder
	b.WriteString(beginUpdate + "\r")
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.drawn)
	}
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J" + endUpdate)
	fmt.Fprint(l.w, b.String())
	l.drawn = len(lines)
}

const nameColumn = 18

// frame renders an operation's stages, one line each, none wider than width.
func frame(o op.Operation, now time.Time, tick int, p Palette, width int) []string {
	spinner := []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	lines := make([]string, 0, len(o.Stages))
	for _, st := range o.Stages {
		mark := p.Cyan(spinner[tick%len(spinner)])
		detail := Escape(st.Detail)
		switch {
		case st.Done:
			mark, detail = p.Green("✓"), ""
		case o.State.Ended() && o.State != op.Done:
			mark = p.Red("✗")
		}
		room := max(0, width-1-4) // beside the mark; a line that fills the last column would wrap
		name := displaywidth.TruncateString(Escape(st.Name), min(nameColumn, room), "…")
		line := "  " + mark + " " + name
		took := fmt.Sprintf(" %12s", Duration(elapsed(st, o, now)))
		if room -= nameColumn + len(took); room >= 0 {
			line += strings.Repeat(" ", nameColumn-displaywidth.String(name)) + p.Dim(took)
		}
		if room -= 2; detail != "" && room > 4 {
			line += "  " + p.Dim(displaywidth.TruncateString(detail, room, "…"))
		}
		lines = append(lines, line)
	}
	return lines
}

// elapsed is a stage's duration, or how long it has been running. A clock that differs from the
// daemon's can make that negative, which Duration hides.
func elapsed(st op.Stage, o op.Operation, now time.Time) time.Duration {
	if st.Done {
		return st.Duration
	}
	if o.State.Ended() {
		now = o.Ended
	}
	return now.Sub(st.Started)
}
