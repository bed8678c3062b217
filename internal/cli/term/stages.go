package term

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clipperhouse/displaywidth"

	"banger/internal/op"
)

// Follow shows an operation's stages while follow runs. On a terminal they are redrawn in place with
// their running times; elsewhere each finished stage is one line. Everything goes to s.Err, so that
// s.Out holds results only. It returns what follow returns.
func Follow(ctx context.Context, s *IO, follow func(context.Context, func(op.Operation)) (op.Operation, error)) (op.Operation, error) {
	if !s.ErrTTY || s.Dumb {
		plain := plainStages{w: s.Err}
		return follow(ctx, plain.update)
	}
	var now op.Operation
	p := s.ErrPalette()
	live := &screen{w: s.Err, size: s.Size, lines: func(at time.Time, tick, columns, _ int) []string {
		return frame(now, at, tick, p, columns)
	}}
	stop := live.animate()
	defer stop()
	return follow(ctx, func(o op.Operation) { live.change(func() { now = o }) })
}

// plainStages prints each stage once, when it is over.
type plainStages struct {
	w      io.Writer
	prefix string // says whose stages they are where there are several's
	said   []string
}

func (p *plainStages) update(o op.Operation) {
	for _, st := range o.Stages {
		word := ""
		switch {
		case slices.Contains(p.said, st.Name):
		case st.Done && st.Outcome != "":
			word = string(st.Outcome)
		case st.Done:
			word = "done"
		case o.State.Ended():
			word = string(o.State)
		}
		if word == "" {
			continue
		}
		p.said = append(p.said, st.Name)
		fmt.Fprintf(p.w, "%s%s … %s %s\n", p.prefix, Escape(st.Name), word, Duration(elapsed(st, o, o.Ended)))
	}
}

const nameColumn = 18

// frame renders an operation's stages, one line each, none wider than width.
func frame(o op.Operation, now time.Time, tick int, p Palette, width int) []string {
	lines := make([]string, 0, len(o.Stages))
	for _, st := range o.Stages {
		mark := p.Cyan(spinner(tick))
		detail := Escape(st.Detail)
		switch {
		case st.Outcome == op.Failed, st.Outcome == op.Canceled, !st.Done && o.State.Ended() && o.State != op.Done:
			mark = p.Red("✗")
		case st.Done:
			mark, detail = p.Green("✓"), ""
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
