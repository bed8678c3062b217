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
	"time"

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

// record is a line of the daemon's log.
func record(at time.Time, id, rest string) string {
	return fmt.Sprintf("{\"time\":%q,\"level\":\"INFO\",\"msg\":\"x\",\"id\":%q%s}\n", at.Format(time.RFC3339Nano), id, rest)
}

// TestTheDaemonsLogAboutAVM holds that a user is told what was logged about his VM, and nothing of what was logged beside.
func TestTheDaemonsLogAboutAVM(t *testing.T) {
	const dev, other = "1f0c6a2b9d3e", "77ab01cd23ef"
	w := newWorld(t)
	now := time.Now()
	old := record(now.Add(-2*time.Hour), dev, "")
	stage := record(now.Add(-time.Hour), dev, `,"operation":"op-1","stage":"guest"`)
	late := record(now, dev, `,"n":1`)
	noise := record(now, other, "") + record(now, other, `,"operation":"op-2","error":"\"id\":\"`+dev+`\""`) +
		"{\"time\":\"x\",\"id\":\"" + dev + "\"}\nno JSON about " + dev + "\n"
	if err := os.MkdirAll(w.layout.State, 0o700); err != nil {
		t.Fatal(err)
	}
	path := w.layout.DaemonLog()
	w.write(path+".1", noise+old)
	w.write(path, noise+stage+noise+late)
	for _, c := range []struct {
		q    client.LogQuery
		want string
	}{
		{client.LogQuery{Source: "daemon"}, old + stage + late},
		{client.LogQuery{Source: "daemon", Lines: 1}, late},
		{client.LogQuery{Source: "daemon", Lines: 3}, old + stage + late},
		{client.LogQuery{Source: "daemon", Since: "90m"}, stage + late},
		{client.LogQuery{Source: "daemon", Since: now.Add(-time.Minute).Format(time.RFC3339)}, late},
		{client.LogQuery{Source: "operation"}, stage},
		{client.LogQuery{Source: "operation", Since: "1m"}, ""},
	} {
		if got := w.logs(c.q); got != c.want {
			t.Errorf("%+v: %s\nwant %s", c.q, got, c.want)
		}
	}
	for query, want := range map[string]string{"source=syslog": "there is no such log", "since=yesterday": "neither a time span nor a point in time", "since=-1m": "neither"} {
		answer := drainText(t, w.raw("GET /v1/vms/dev/logs?"+query+" HTTP/1.0\r\n\r\n"))
		if !strings.Contains(answer, " 400 ") || !strings.Contains(answer, want) {
			t.Errorf("%s: %s", query, answer)
		}
	}

	r, err := w.client.Logs(t.Context(), "dev", client.LogQuery{Source: "operation", Lines: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines := bufio.NewReader(r)
	next := record(now, dev, `,"operation":"op-3","stage":"nic"`)
	for i, want := range []string{stage, next, strings.Replace(next, "nic", "disk", 1)} {
		if got, err := lines.ReadString('\n'); err != nil || got != want {
			t.Fatalf("followed line %d is %q, %v, want %q", i, got, err, want)
		}
		switch i {
		case 0: // a line that comes in two parts
			w.write(path, noise+next[:20])
			w.write(path, next[20:])
		case 1: // and one after it was put aside
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			w.write(path, noise+strings.Replace(next, "nic", "disk", 1))
		}
	}
}

// TestLogsSince goes by what was noted when a raw log grew.
func TestLogsSince(t *testing.T) {
	w := newWorld(t)
	path := w.consoleLog("old\n")
	w.write(path+".times", fmt.Sprintf("%d 0\n", time.Now().Add(-time.Hour).Unix()))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".times", path+".1.times"); err != nil {
		t.Fatal(err)
	}
	w.write(path, "new\nnewer\n")
	w.write(path+".times", fmt.Sprintf("%d 0\n%d 4\n", time.Now().Add(-time.Minute).Unix(), time.Now().Unix()))
	for since, want := range map[string]string{"2h": "old\nnew\nnewer\n", "30m": "new\nnewer\n", "10s": "newer\n"} {
		if got := w.logs(client.LogQuery{Source: "console", Since: since}); got != want {
			t.Errorf("since %s: %q, want %q", since, got, want)
		}
	}
	if got := w.logs(client.LogQuery{Source: "console", Since: "2h", Lines: 1}); got != "newer\n" {
		t.Errorf("the last line of them is %q", got)
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

// TestALogWhoseDaemonEnds says so.
func TestALogWhoseDaemonEnds(t *testing.T) {
	w := draft(t)
	w.events = noEvents{w.verbs}
	stop := w.serve()
	w.consoleLog("first\n")
	r, err := w.client.Logs(t.Context(), "dev", client.LogQuery{Source: "console", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := bufio.NewReader(r).ReadString('\n'); err != nil || got != "first\n" {
		t.Errorf("got %q, %v", got, err)
	}
	stop()
	_, err = io.ReadAll(r)
	if !fault.Is(err, fault.Unavailable) || !strings.HasPrefix(err.Error(), `read log of VM "dev": the daemon ended while it was read: `) {
		t.Errorf("it ended with %v", err)
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
