package term_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/cli/term"
	"banger/internal/op"
)

func underway(stages ...op.Stage) op.Operation {
	now := time.Now()
	for i := range stages {
		stages[i].Started = now
	}
	return op.Operation{ID: "op-0123456789", State: op.Underway, Created: now, Stages: stages}
}

func TestBoardInAPipe(t *testing.T) {
	var b bytes.Buffer
	board := term.NewBoard(&term.IO{Err: &b}, []string{"dev", "x\x1b"})
	board.Update(0, underway(op.Stage{Name: "shutdown"}))
	board.Update(1, underway(op.Stage{Name: "shutdown", Done: true, Duration: 20 * time.Millisecond}))
	board.Update(0, underway(op.Stage{Name: "shutdown", Done: true, Duration: 40 * time.Millisecond}))
	board.End(0)
	board.Close()
	if diff := cmp.Diff("x\\x1b: shutdown … done 20 ms\ndev: shutdown … done 40 ms\n", b.String()); diff != "" {
		t.Error(diff)
	}
}

// frames returns what a terminal was told to show, frame by frame, without colours.
func frames(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	control := regexp.MustCompile("\x1b\\[[?0-9;]*[A-Za-z]|\r")
	for frame := range strings.SplitSeq(text, "\x1b[?2026l") {
		out = append(out, control.ReplaceAllString(frame, ""))
	}
	return out
}

func TestBoardOnATerminal(t *testing.T) {
	var b bytes.Buffer
	board := term.NewBoard(&term.IO{Err: &b, ErrTTY: true, Color: true, Size: func() (int, int) { return 60, 24 }}, []string{"dev", "much-longer"})
	board.Update(0, underway(op.Stage{Name: "root disk"}, op.Stage{Name: "network", Detail: strings.Repeat("x", 100)}))
	board.End(0)
	board.Close()
	seen := frames(t, b.String())
	first := regexp.MustCompile(`^  ⠋ dev +\d ms  root disk, network: x+…\n  · much-longer               waits for its turn\n$`)
	if !first.MatchString(seen[0]) {
		t.Errorf("first %q", seen[0])
	}
	if seen[1] != "  · much-longer               waits for its turn\n" {
		t.Errorf("second %q", seen[1])
	}
	if got := b.String(); !strings.HasSuffix(got, "\x1b[1A\x1b[J\x1b[?2026l\r\x1b[J\x1b[?25h") {
		t.Errorf("the board stays: %q", got)
	}
}

// Those under way are shown where not all can be.
func TestBoardInASmallTerminal(t *testing.T) {
	for _, columns := range []int{6, 12, 30, 35} {
		var b bytes.Buffer
		board := term.NewBoard(&term.IO{Err: &b, ErrTTY: true, Size: func() (int, int) { return columns, 3 }}, []string{"first", "second", "third"})
		board.Update(2, underway(op.Stage{Name: "shutdown"}))
		board.Close()
		seen := frames(t, b.String())
		lines := strings.Split(strings.TrimSuffix(seen[0], "\n"), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[1], "  ⠋ ") {
			t.Errorf("%d columns: %q", columns, lines)
		}
		for _, line := range lines {
			if n := len([]rune(line)); n >= columns {
				t.Errorf("%d columns: %q would wrap", columns, line)
			}
		}
	}
}
