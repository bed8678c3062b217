package term

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// frameInterval is slow enough to cost nothing and fast enough for tenths of a second to run.
const frameInterval = 100 * time.Millisecond

// screen redraws a block of lines in place. Each redraw is one write inside a synchronized update, so
// that no terminal shows a half-drawn block.
type screen struct {
	w    io.Writer
	size func() (columns, rows int)
	// lines renders the block as it is now, for so many columns and at best no more than so many rows.
	// It is called with mu held, as whatever changes what it renders must be.
	lines func(now time.Time, tick, columns, rows int) []string

	mu    sync.Mutex
	tick  int
	drawn int // lines on the screen
}

// change makes a change to what is rendered, and draws it.
func (s *screen) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.draw()
}

// animate redraws until the returned function is called, which leaves the last block standing.
func (s *screen) animate() (stop func()) {
	fmt.Fprint(s.w, hideCursor)
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
			s.change(func() { s.tick++ })
		}
	}()
	return func() {
		close(quit)
		<-done
		fmt.Fprint(s.w, "\r\x1b[J"+showCursor) // what a typed Ctrl-C left behind goes too
	}
}

const (
	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	beginUpdate = "\x1b[?2026h"
	endUpdate   = "\x1b[?2026l"
)

func (s *screen) draw() {
	columns, rows := s.size()
	rows = max(1, rows-1) // the cursor needs one too
	lines := s.lines(time.Now(), s.tick, columns, rows)
	if len(lines) == 0 && s.drawn == 0 {
		return
	}
	lines = lines[max(0, len(lines)-rows):] // what has scrolled away cannot be redrawn
	var b strings.Builder
	b.WriteString(beginUpdate + "\r")
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J" + endUpdate)
	fmt.Fprint(s.w, b.String())
	s.drawn = len(lines)
}

func spinner(tick int) string {
	frames := []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	return frames[tick%len(frames)]
}
