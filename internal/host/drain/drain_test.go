package drain_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"banger/internal/host/drain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDrainKeepsAllAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	fifo, logfile := filepath.Join(dir, "console"), filepath.Join(dir, "logs", "console.log")
	var lines []string
	line := func(l string) { lines = append(lines, l) }
	first, err := drain.Open(fifo, logfile, line)
	if err != nil {
		t.Fatal(err)
	}
	w, err := drain.OpenFIFO(fifo) // as the hypervisor holds it
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		t.Helper()
		if _, err := w.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	write("one\r\n\x1b[32m  OK\x1b[0m two\n\nthr")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	write("while nobody reads\n")
	second, err := drain.Open(fifo, logfile, line)
	if err != nil {
		t.Fatal(err)
	}
	write("last words")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"one", "OK two", "thr", "while nobody reads", "last words"}, lines); d != "" {
		t.Error(d)
	}
	raw, err := os.ReadFile(logfile)
	if want := "one\r\n\x1b[32m  OK\x1b[0m two\n\nthrwhile nobody reads\nlast words"; err != nil || string(raw) != want {
		t.Errorf("log holds %q, %v", raw, err)
	}
	if tail, err := drain.Tail(logfile, 2); err != nil || tail != "thrwhile nobody reads\nlast words" {
		t.Errorf("tail %q, %v", tail, err)
	}
}

func TestLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	fifo, logfile := filepath.Join(dir, "console"), filepath.Join(dir, "console.log")
	got := make(chan string, 1)
	d, err := drain.Open(fifo, logfile, func(l string) {
		if strings.HasPrefix(l, "end ") {
			got <- l
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := drain.OpenFIFO(fifo)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	chunk := append(bytes.Repeat([]byte("x"), 64<<10), '\n')
	for range 5 << 20 / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(w, "end %s\n", strings.Repeat("y", 4096))
	if l := <-got; len(l) != 1024 {
		t.Errorf("a line of %d bytes was handed on", len(l))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(logfile + "*")
	if d := cmp.Diff([]string{logfile, logfile + ".1", logfile + ".1.times", logfile + ".times"}, files); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 1<<20 || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
	}
}

// TestALogThatWasRemoved goes on in a new one: who removes a log by hand wants space, not silence.
func TestALogThatWasRemoved(t *testing.T) {
	dir := t.TempDir()
	fifo, logfile := filepath.Join(dir, "console"), filepath.Join(dir, "console.log")
	d, err := drain.Open(fifo, logfile, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	w, err := drain.OpenFIFO(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := os.Remove(logfile); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString(strings.Repeat("x", 3<<20) + "\nlast words\n"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if tail, err := drain.Tail(logfile, 1); err != nil || tail != "last words" {
		t.Errorf("tail %q, %v", tail, err)
	}
}

func TestNotAFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := drain.Open(path, path+".log", nil)
	if err == nil || err.Error() != path+" is not a FIFO" {
		t.Errorf("got %v", err)
	}
}

func TestTailOfNothing(t *testing.T) {
	if tail, err := drain.Tail(filepath.Join(t.TempDir(), "none"), 3); tail != "" || err != nil {
		t.Errorf("%q %v", tail, err)
	}
}
