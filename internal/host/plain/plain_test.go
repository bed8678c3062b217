package plain_test

import (
	"strings"
	"testing"
	"unicode"

	"banger/internal/host/plain"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                       "plain",
		" a\tb\r":                     "a b",
		"\x1b[0;1;31mred\x1b[0m \x07": "red",
		"\x1b]0;title\x07":            "]0;title",
		"\x1b":                        "",
		"\x1b[12":                     "",
		"\xff\u009b[2Jé":              "?[2Jé",
		"a\u202eb\u200bc":             "abc",
	} {
		if got := plain.Line(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m")
	f.Fuzz(func(t *testing.T, s string) {
		if got := plain.Line(s); strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", s, got)
		}
	})
}
