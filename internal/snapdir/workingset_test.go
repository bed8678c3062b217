package snapdir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/snapdir"
	"banger/internal/snapshot"
)

// mapped maps a snapshot's memory as a hypervisor does, and comes to some of its pages.
func mapped(t *testing.T, dir string, size int, pages ...int) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, snapshot.FileMemory))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	for _, p := range pages {
		memory[p*os.Getpagesize()] = 1
	}
}

func TestAWorkingSetIsLearntOnce(t *testing.T) {
	dir, page := t.TempDir(), os.Getpagesize()
	mapped(t, dir, 1024*page, 3, 4, 20, 700)
	var d snapdir.Dirs
	if err := d.Ahead(dir); err != nil {
		t.Errorf("before anything was learnt: %v", err)
	}
	if err := d.Learn(dir, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, snapshot.FileWorkingSet)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// 20 is near enough to 4 to be read along. What the kernel maps around a page that is read is none of these: they
	// are written.
	want := "12288 86016\n2867200 2871296\n"
	if page == 4096 && string(got) != want {
		t.Errorf("learnt %q, want %q", got, want)
	}
	mapped(t, t.TempDir(), page)
	if err := os.WriteFile(path, []byte("0 4096\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Learn(dir, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "0 4096\n" {
		t.Errorf("it was learnt anew: %q", got)
	}
	if err := d.Ahead(dir); err != nil {
		t.Error(err)
	}
}

func TestNothingIsLearntOfAStranger(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, snapshot.FileMemory), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (snapdir.Dirs{}).Learn(dir, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, snapshot.FileWorkingSet)); err == nil {
		t.Error("a process that does not map it has a working set")
	}
	if err := (snapdir.Dirs{}).Learn(t.TempDir(), os.Getpid()); err == nil {
		t.Error("there is no memory")
	}
}

func TestABadWorkingSetIsToldOf(t *testing.T) {
	for _, text := range []string{"x\n", "5 4\n", "-1 4\n", "1\n"} {
		dir := t.TempDir()
		mapped(t, dir, 4096)
		if err := os.WriteFile(filepath.Join(dir, snapshot.FileWorkingSet), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (snapdir.Dirs{}).Ahead(dir); err == nil || !strings.Contains(err.Error(), "is no stretch") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
