package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestArgv(t *testing.T) {
	m := machine{
		kernel: "/c/vmlinuz", initrd: "/r/initrd", root: "/c/root.ext4", memory: 2048, cpus: 2, sockets: "/r",
		shares: []share{{"src", "/repo", true}, {"out", "/r/out", false}},
	}
	options := func(m machine, name string) (out []string) {
		argv := m.argv()
		for i, a := range argv {
			if a == name {
				out = append(out, argv[i+1])
			}
		}
		return out
	}
	for name, want := range map[string][]string{
		"-cpu":    {"EPYC"}, // -cpu max has no svm
		"-m":      {"2048"},
		"-append": {"console=ttyS0 quiet loglevel=3 panic=1 mitigations=off nokaslr"},
		"-drive":  {"file=/c/root.ext4,if=virtio,format=raw,snapshot=on,cache=unsafe,aio=threads"},
		"-virtfs": {
			"local,path=/repo,mount_tag=src,security_model=none,multidevs=remap,readonly=on",
			"local,path=/r/out,mount_tag=out,security_model=none,multidevs=remap",
		},
		"-nic": nil,
	} {
		if d := cmp.Diff(want, options(m, name)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if !slices.Contains(m.argv(), "-nodefaults") {
		t.Error("without -nodefaults QEMU adds a NIC of its own")
	}

	m.disk, m.net, m.systemd = "/r/scratch.raw", true, true
	scratch := func() string { return options(m, "-drive")[1] }
	if got := scratch(); !strings.HasSuffix(got, "snapshot=on") {
		t.Errorf("the scratch disk is written by a run: %s", got)
	}
	m.keepDisk = true
	if got := scratch(); !strings.HasSuffix(got, "snapshot=off") {
		t.Errorf("a scratch disk to keep is thrown away: %s", got)
	}
	if got := options(m, "-nic"); len(got) != 1 || !strings.HasPrefix(got[0], "user,") {
		t.Errorf("network: %v", got)
	}
	if got := options(m, "-append"); !strings.Contains(got[0], " lab.systemd ") {
		t.Errorf("kernel command line: %v", got)
	}
}

// TestStream holds that a port's stream ends where the lab host said, however it is cut to pieces.
func TestStream(t *testing.T) {
	for name, c := range map[string]struct{ sent, want string }{
		"plain":          {"hello\n" + endOfStream, "hello\n"},
		"empty":          {endOfStream, ""},
		"after the end":  {"a" + endOfStream + "b", "a"},
		"half a mark":    {"a" + endOfStream[:4] + "b" + endOfStream, "a" + endOfStream[:4] + "b"},
		"mark after NUL": {"a\x00" + endOfStream, "a\x00"},
		"cut off":        {"a" + endOfStream[:5], "a" + endOfStream[:5]},
		"long":           {strings.Repeat("x", 200_000) + endOfStream, strings.Repeat("x", 200_000)},
	} {
		for cut, r := range map[string]io.Reader{
			"whole": strings.NewReader(c.sent), "bytes": iotest.OneByteReader(strings.NewReader(c.sent)), "halves": iotest.HalfReader(strings.NewReader(c.sent)),
		} {
			var got bytes.Buffer
			copyStream(&got, r)
			if got.String() != c.want {
				t.Errorf("%s in %s: got %.40q, want %.40q", name, cut, got.String(), c.want)
			}
		}
	}
}

// TestWords holds that a status of zero is said, not left out.
func TestWords(t *testing.T) {
	zero := 0
	for want, w := range map[string]toCaller{
		`{"begun":true}`:  {Begun: true},
		`{"exit":0}`:      {Exit: &zero},
		`{"fault":"why"}`: {Fault: "why"},
	} {
		got, err := json.Marshal(w)
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}

func TestTail(t *testing.T) {
	var c tail
	for _, s := range []string{strings.Repeat("y", 3*tailSize), "\nwarning: TCG doesn't support requested feature: x\n", "panic \x1b[31mred\n\n"} {
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	got := c.String()
	if len(got) > tailSize || !strings.HasSuffix(got, "y\npanic [31mred") {
		t.Errorf("%d bytes, ending %q", len(got), got[max(0, len(got)-40):])
	}
}

// TestOnce holds that builders wait for one another, and that what a killed one left is not believed.
func TestOnce(t *testing.T) {
	l := &Lab{Cache: t.TempDir(), Log: io.Discard}
	dir := filepath.Join(l.Cache, "thing")
	if err := os.MkdirAll(filepath.Join(dir+".part", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	built := make(chan string, 8)
	for range cap(built) {
		wg.Go(func() {
			if err := l.Once(t.Context(), dir, func(tmp string) error {
				built <- tmp
				return os.WriteFile(filepath.Join(tmp, "whole"), nil, 0o600)
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(built) != 1 {
		t.Errorf("built %d times", len(built))
	}
	if _, err := os.Stat(filepath.Join(dir, "half")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it holds what a killed builder left: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "whole")); err != nil {
		t.Error(err)
	}
}

func TestOnceFails(t *testing.T) {
	l := &Lab{Cache: t.TempDir(), Log: io.Discard}
	dir, broken := filepath.Join(l.Cache, "thing"), errors.New("no mirror")
	if err := l.Once(t.Context(), dir, func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	for _, path := range []string{dir, dir + ".part"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestSweep holds that a room goes when its run was killed, and stays while its run lives.
func TestSweep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	l := &Lab{Cache: t.TempDir(), Log: io.Discard}
	killed := filepath.Join(os.TempDir(), roomPrefix+"killed")
	if err := os.MkdirAll(filepath.Join(killed, "out"), 0o700); err != nil {
		t.Fatal(err)
	}
	alive, leave, err := l.room(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, leaveOther, err := l.room(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for path, there := range map[string]bool{killed: false, alive: true, other: true} {
		if _, err := os.Stat(path); (err == nil) != there {
			t.Errorf("%s: there %v, want %v", path, err == nil, there)
		}
	}
	leave()
	leaveOther()
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestFlockEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var files []*os.File
	for range 2 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	if err := flock(t.Context(), files[0]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := flock(ctx, files[1]); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
