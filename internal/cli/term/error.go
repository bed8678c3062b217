package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"banger/internal/fault"
)

// Error prints a failure for people: what failed and why on one line, the few raw lines that explain
// it, where the full story is, and what to do.
func Error(w io.Writer, p Palette, err error) {
	e := fault.From(err)
	fmt.Fprintf(w, "%s %s\n", p.Red("banger:"), Escape(e.Error()))
	if detail := strings.TrimRight(EscapeLines(e.Detail), "\n"); detail != "" {
		for line := range strings.SplitSeq(detail, "\n") {
			fmt.Fprintf(w, "    %s\n", p.Dim(line))
		}
	}
	if e.Stage != "" {
		fmt.Fprintf(w, "%s %s\n", p.Dim("stage:"), Escape(e.Stage))
	}
	for _, path := range e.Logs {
		fmt.Fprintf(w, "%s %s\n", p.Dim("log:"), Escape(path))
	}
	if e.Hint != "" {
		fmt.Fprintf(w, "%s %s\n", p.Cyan("hint:"), Escape(e.Hint))
	}
}

// ErrorJSON prints a failure as one line of JSON: {"error": {"code": …}}.
func ErrorJSON(w io.Writer, err error) {
	if err := writeJSON(w, map[string]*fault.Error{"error": fault.From(err)}, ""); err != nil {
		Error(w, Palette{}, err)
	}
}

// JSON prints v indented.
func JSON(w io.Writer, v any) error { return writeJSON(w, v, "  ") }

// JSONLine prints v on one line, for a stream of them: it ends where nobody reads on.
func JSONLine(w io.Writer, v any) error { return writeJSON(w, v, "") }

// writeJSON writes what the encoder leaves raw but a terminal may act on, C1 controls and
// bidirectional overrides, as JSON escapes. Such characters only occur inside strings.
func writeJSON(w io.Writer, v any, indent string) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range buf.String() {
		switch {
		case safe(r, "\n") || r == utf8.RuneError:
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		}
	}
	_, err := fmt.Fprint(w, b.String())
	return err
}
