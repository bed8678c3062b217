package term_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"banger/internal/cli/term"
	"banger/internal/fault"
	"banger/internal/op"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                "plain",
		"Grüße 世界":             "Grüße 世界",
		"\x1b[31mred":          `\x1b[31mred`,
		"a\r\nb\tc":            `a\r\nb\tc`,
		"\u009b31m":            `\u009b31m`,
		"bell\a":               `bell\x07`,
		"\u202egpj.exe":        `\u202egpj.exe`,
		"zero\u200bwidth":      `zero\u200bwidth`,
		"bad\xffbyte":          `bad\xffbyte`,
		"\U000e0001tag":        `\U000e0001tag`,
		"real \ufffd replaced": "real \ufffd replaced",
	} {
		if got := term.Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
	if got := term.EscapeLines("a\n\tb\x1b"); got != "a\n\tb\\x1b" {
		t.Errorf("EscapeLines = %q", got)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b]0;title\x07b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range term.Escape(s) {
			if r != unicode.ReplacementChar && !unicode.IsPrint(r) {
				t.Fatalf("Escape(%q) let %U through", s, r)
			}
		}
	})
}

func TestDurationAndAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                "0 ms",
		0:                           "0 ms",
		82 * time.Millisecond:       "82 ms",
		1240 * time.Millisecond:     "1.24 s",
		12340 * time.Millisecond:    "12.3 s",
		192 * time.Second:           "3 min 12 s",
		3*time.Hour + 4*time.Minute: "3 h 4 min",
	} {
		if got := term.Duration(d); got != want {
			t.Errorf("Duration(%d) = %q, want %q", d, got, want)
		}
	}
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 47 * time.Hour: "47 h", 48 * time.Hour: "2 d",
	} {
		if got := term.Age(now.Add(-d), now); got != want {
			t.Errorf("Age(%s) = %q, want %q", d, got, want)
		}
	}
	if got := term.Ago(time.Time{}, now); got != "never" {
		t.Errorf("Ago(zero) = %q", got)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	term.Table(&b, term.Palette{}, []string{"NAME", "STATE", "LABELS"}, [][]term.Cell{
		{term.Text("a"), term.Text("running"), term.Text("")},
		{term.Text("世界"), term.Text("\x1b[2J"), term.Text("k=v")},
	})
	want := "NAME   STATE     LABELS\n" +
		"a      running\n" +
		"世界   \\x1b[2J   k=v\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestError(t *testing.T) {
	err := fault.New(fault.GuestFailed, "it never said hello\x1b[2J").WithOp("create VM", "dev").
		WithHint("read the console").WithDetail("one\n\x1b[31mtwo\n").WithLogs("/var/lib/console.log").InStage("guest")
	var b bytes.Buffer
	term.Error(&b, term.Palette{}, errors.Join(err))
	want := `banger: create VM "dev": it never said hello\x1b[2J
    one
    \x1b[31mtwo
stage: guest
log: /var/lib/console.log
hint: read the console
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	term.ErrorJSON(&b, err)
	if got := b.String(); !strings.HasPrefix(got, `{"error":{"code":"guest_failed","op":"create VM","subject":"dev"`) || strings.Count(got, "\n") != 1 {
		t.Errorf("JSON: %s", got)
	}
}

func TestJSONIsSafeOnATerminal(t *testing.T) {
	var b bytes.Buffer
	if err := term.JSON(&b, map[string]string{"k": "\x1b\u009b\u202e\U000e0001<é>"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("{\n  \"k\": \"\\u001b\\u009b\\u202e\\udb40\\udc01<é>\"\n}\n", b.String()); diff != "" {
		t.Error(diff)
	}
}

func operation(state op.State, stages ...op.Stage) op.Operation {
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range stages {
		stages[i].Started = start
	}
	return op.Operation{State: state, Stages: stages, Ended: start.Add(3 * time.Second)}
}

func follow(ctx context.Context, s *term.IO, steps ...op.Operation) (op.Operation, error) {
	return term.Follow(ctx, s, func(_ context.Context, update func(op.Operation)) (op.Operation, error) {
		for _, o := range steps {
			update(o)
		}
		return steps[len(steps)-1], nil
	})
}

func TestFollowInAPipe(t *testing.T) {
	var b bytes.Buffer
	s := &term.IO{Err: &b, Size: func() (int, int) { return 80, 24 }}
	disks := op.Stage{Name: "disks", Done: true, Duration: 82 * time.Millisecond}
	_, err := follow(t.Context(), s,
		operation(op.Underway, op.Stage{Name: "disks"}),
		operation(op.Underway, disks, op.Stage{Name: "boot\n"}),
		operation(op.Failed, disks, op.Stage{Name: "boot\n"}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("disks … done 82 ms\nboot\\n … failed 3.00 s\n", b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestFollowOnATerminal(t *testing.T) {
	var b bytes.Buffer
	s := &term.IO{Err: &b, ErrTTY: true, Size: func() (int, int) { return 60, 24 }}
	_, err := follow(t.Context(), s,
		operation(op.Underway, op.Stage{Name: "boot", Detail: strings.Repeat("x", 100)}),
		operation(op.Done, op.Stage{Name: "boot", Done: true, Duration: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"\x1b[?25l", "xxx…\x1b[K\n", "\x1b[1A", "  ✓ boot                     1.00 s\x1b[K\n", "\x1b[?25h"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	for line := range strings.SplitSeq(got, "\n") {
		if n := len([]rune(line)); n > 60+30 { // 30 for the control sequences
			t.Errorf("a line would wrap: %q", line)
		}
	}
}

// In a small terminal nothing wraps or scrolls: what has would not be redrawn but drawn again.
func TestFollowInASmallTerminal(t *testing.T) {
	var stages []op.Stage
	for _, name := range []string{"first", "second", "third", "boot-of-a-long-name"} {
		stages = append(stages, op.Stage{Name: name, Done: true, Duration: time.Second})
	}
	control := regexp.MustCompile("\x1b\\[[?0-9;]*[A-Za-z]")
	for _, columns := range []int{8, 12, 35, 36, 37} {
		var b bytes.Buffer
		s := &term.IO{Err: &b, ErrTTY: true, Color: true, Size: func() (int, int) { return columns, 4 }}
		if _, err := follow(t.Context(), s, operation(op.Done, stages...), operation(op.Done, stages...)); err != nil {
			t.Fatal(err)
		}
		text := control.ReplaceAllString(b.String(), "")
		for line := range strings.SplitSeq(text, "\n") {
			if n := len([]rune(strings.Trim(line, "\r"))); n >= columns {
				t.Errorf("%d columns: %q would wrap", columns, line)
			}
		}
		if n := strings.Count(text, "\n"); n != 2*3 {
			t.Errorf("%d columns: %d lines in two frames of 4 rows: %q", columns, n, text)
		}
		if !strings.Contains(b.String(), "\x1b[3A") {
			t.Errorf("%d columns: the frame was not drawn over: %q", columns, b.String())
		}
	}
}

func TestCopyLines(t *testing.T) {
	in := "[\x1b[0;32m  OK  \x1b[0m] Started.\r\n\x1b]0;owned\a\tx\n\n" + strings.Repeat("y", 40<<10) + "\nlogin: "
	var b bytes.Buffer
	if err := term.CopyLines(&b, strings.NewReader(in), ""); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	if want := "[  OK  ] Started.\n\\x1b]0;owned\\x07\tx\n\nyyy"; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "y\nlogin: \n") {
		t.Errorf("%.80q … %q", got, got[len(got)-20:])
	}
	if n := strings.Count(got, "y"); n != 40<<10 {
		t.Errorf("%d bytes of the long line", n)
	}
}

// TestLive holds that a block is redrawn where it stands, and never larger than the terminal.
func TestLive(t *testing.T) {
	var b bytes.Buffer
	s := &term.IO{Out: &b, OutTTY: true, Size: func() (int, int) { return 12, 4 }}
	l := term.NewLive(s)
	l.Draw([]string{"one", "\x1b[2mtwo is too long\x1b[0m"})
	l.Draw([]string{"1", "2", "3", "4", "5"})
	l.Close()
	want := "\x1b[?25l" +
		"\x1b[?2026h\rone\x1b[K\n\x1b[2mtwo is too…\x1b[0m\x1b[K\n\x1b[J\x1b[?2026l" +
		"\x1b[?2026h\r\x1b[2A1\x1b[K\n2\x1b[K\n… and 3 more\x1b[K\n\x1b[J\x1b[?2026l" +
		"\r\x1b[J\x1b[?25h"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}
