package term

import (
	"fmt"
	"time"

	"github.com/clipperhouse/displaywidth"
)

// Live is text on IO.Out that is redrawn in place. Out must be a terminal that is not dumb.
type Live struct {
	screen screen
	text   []string
}

// NewLive returns an empty one.
func NewLive(s *IO) *Live {
	l := &Live{}
	l.screen = screen{w: s.Out, size: s.Size, lines: func(_ time.Time, _, columns, rows int) []string { return fit(l.text, columns, rows) }}
	fmt.Fprint(s.Out, hideCursor)
	return l
}

// Draw shows these lines in place of the last ones. They are escaped, but for colours.
func (l *Live) Draw(lines []string) { l.screen.change(func() { l.text = lines }) }

// Close leaves what was drawn last standing.
func (l *Live) Close() { fmt.Fprint(l.screen.w, "\r\x1b[J"+showCursor) }

// fit keeps what a terminal has room for: the first lines, with word of those that are left out, each no wider than it
// is, since one that wraps cannot be redrawn.
func fit(text []string, columns, rows int) []string {
	left := len(text) - rows
	if left > 0 {
		text = text[:max(0, rows-1)]
	}
	cut := displaywidth.Options{ControlSequences: true}
	lines := make([]string, 0, len(text)+1)
	for _, line := range text {
		lines = append(lines, cut.TruncateString(line, max(1, columns-1), "…"))
	}
	if left > 0 {
		lines = append(lines, fmt.Sprintf("… and %d more", left+1))
	}
	return lines
}
