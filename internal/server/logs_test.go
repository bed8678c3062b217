package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/server"
)

// consoleLog makes the log of the one VM and returns its path.
func (w *world) consoleLog(text string) string {
	w.t.Helper()
	path := w.layout.ConsoleLog("1f0c6a2b9d3e")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.write(path, text)
	return path
}

func (w *world) write(path, text string) {
	w.t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) logs(q client.LogQuery) string {
	w.t.Helper()
	r, err := w.client.Logs(w.t.Context(), "dev", q)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	if got := w.logs(client.LogQuery{Source: "console"}); got != "" {
		t.Errorf("before there is one: %q", got)
	}
	path := w.consoleLog("one\ntwo\nthree\nfo")
	for lines, want := range map[int]string{
		0: "one\ntwo\nthree\nfo", 1: "fo", 2: "three\nfo", 4: "one\ntwo\nthree\nfo", 100: "one\ntwo\nthree\nfo", -1: "one\ntwo\nthree\nfo",
	} {
		if got := w.logs(client.LogQuery{Source: "console", Lines: lines}); got != want {
			t.Errorf("the last %d lines are %q, want %q", lines, got, want)
		}
	}
	// What was put aside is kept too.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.consoleLog("ur\nfive\n")
	for lines, want := range map[int]string{0: "one\ntwo\nthree\nfour\nfive\n", 1: "five\n", 3: "three\nfour\nfive\n"} {
		if got := w.logs(client.LogQuery{Source: "console", Lines: lines}); got != want {
			t.Errorf("after it was put aside, the last %d lines are %q, want %q", lines, got, want)
		}
	}
	if got := w.logs(client.LogQuery{Source: "firecracker"}); got != "" {
		t.Errorf("another log: %q", got)
	}
}

func TestALongLogIsBounded(t *testing.T) {
	w := newWorld(t)
	w.consoleLog(strings.Repeat("0123456789abcdef", 6<<20/16))
	if got := len(w.logs(client.LogQuery{Source: "console"})); got != 4<<20 {
		t.Errorf("%d bytes were sent", got)
	}
}

func TestTheDaemonsLogIsRoots(t *testing.T) {
	w := newWorld(t)
	conn := w.connectAs(func() int {
		if os.Getuid() == 0 {
			return 12345
		}
		return os.Getuid()
	}())
	if _, err := io.WriteString(conn, "GET /v1/vms/dev/logs?source=daemon HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer := drainText(t, conn); !strings.HasPrefix(answer, "HTTP/1.1 403 ") || !strings.Contains(answer, string(fault.Forbidden)) {
		t.Error(answer)
	}
}

// TestFollowingALog goes on through rotations, loses nothing, and ends with the VM.
func TestFollowingALog(t *testing.T) {
	w := newWorld(t)
	path := w.consoleLog("old\nlast\n")
	r, err := w.client.Logs(t.Context(), "dev", client.LogQuery{Source: "console", Lines: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines := bufio.NewReader(r)
	expect := func(want string) {
		t.Helper()
		got, err := lines.ReadString('\n')
		if err != nil || got != want+"\n" {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	expect("last")
	for round := range 3 {
		w.write(path, fmt.Sprintf("added %d\n", round))
		expect(fmt.Sprintf("added %d", round))
		// Written and put aside between two looks.
		w.write(path, fmt.Sprintf("at the end %d\n", round))
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		w.write(path, fmt.Sprintf("anew %d\n", round))
		expect(fmt.Sprintf("at the end %d", round))
		expect(fmt.Sprintf("anew %d", round))
	}
	w.verbs.fail(fault.New(fault.NotFound, "no VM has this name"))
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("at the end %q, %v", rest, err)
	}
}

func TestFollowingALogThatIsYetToCome(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := w.client.Logs(ctx, "dev", client.LogQuery{Source: "console", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.consoleLog("first\n")
	if got, err := bufio.NewReader(r).ReadString('\n'); err != nil || got != "first\n" {
		t.Errorf("got %q, %v", got, err)
	}
	cancel()
	if _, err := io.ReadAll(r); err == nil {
		t.Error("it goes on after it was called off")
	}
}

// FuzzLastLines compares with the obvious way.
func FuzzLastLines(f *testing.F) {
	for _, text := range []string{"", "\n", "\n\n", "a", "a\n", "a\nb", "a\n\nb\n"} {
		f.Add([]byte(text), 1)
		f.Add([]byte(text), 2)
	}
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		n = 1 + (n&0xff+0xff)%0xff
		all := slices.Collect(strings.Lines(string(text)))
		want := strings.Join(all[max(0, len(all)-n):], "")
		if got := string(server.LastLines(text, n)); got != want {
			t.Errorf("the last %d lines of %q are %q, want %q", n, text, got, want)
		}
	})
}
