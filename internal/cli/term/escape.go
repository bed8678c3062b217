package term

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape makes text that a guest, a file or a daemon wrote safe to print on one line: everything
// that could move a cursor, colour, ring, reorder or hide is shown as a Go escape instead.
func Escape(s string) string { return escape(s, "") }

// EscapeLines is Escape for text of several lines: newlines and tabs stay.
func EscapeLines(s string) string { return escape(s, "\n\t") }

func escape(s, keep string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !safe(r, keep) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case safe(r, keep) || r == utf8.RuneError:
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}

// safe refuses control characters and, by IsPrint, format characters: bidirectional overrides and
// zero-width joiners make a line read as something it is not.
func safe(r rune, keep string) bool {
	return r != utf8.RuneError && unicode.IsPrint(r) || strings.ContainsRune(keep, r)
}
