// Package plain makes text that others wrote safe to show.
package plain

import (
	"strings"
	"unicode"
)

// Line makes a line safe for a terminal: without control characters and escape sequences, a tab as
// a space, no space at its ends.
func Line(line string) string {
	line = strings.ToValidUTF8(line, "?")
	skip := 0 // where the control sequence ends that we are in
	var b strings.Builder
	for i, r := range line {
		if i < skip {
			continue
		}
		switch {
		case r == '\x1b':
			skip = i + escape(line[i:])
		case r == '\t':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		}
	}
	return strings.TrimSpace(b.String())
}

// escape is the length of the terminal's control sequence that s begins with (ESC [ … letter), or 0.
// Without this, boot messages would be full of the colours' remains.
func escape(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	for i := 2; i < len(s); i++ {
		if s[i] >= 0x40 && s[i] <= 0x7e {
			return i + 1
		}
		if s[i] < 0x20 || s[i] > 0x3f {
			return 0
		}
	}
	return len(s)
}
