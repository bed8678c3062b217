package block_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"banger/internal/fault"
	"banger/internal/host/block"
)

// filled writes n bytes that no file system can leave out, and sees them to the disk.
func filled(t *testing.T, path string, n int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("x"), n)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestATreeIsMeasured(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	filled(t, filepath.Join(a, "deep", "root"), 1<<20)
	filled(t, filepath.Join(b, "own"), 2<<20)
	if err := os.Link(filepath.Join(a, "deep", "root"), filepath.Join(b, "linked")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(a, filepath.Join(b, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	method, err := block.Disks{}.Clone(t.Context(), filepath.Join(b, "own"), filepath.Join(b, "clone"), 0)
	if err != nil {
		t.Fatal(err)
	}
	tree := block.Tree{}
	got, err := tree.Measure(t.Context(), []string{a, filepath.Join(dir, "none"), b, a})
	if err != nil || len(got) != 4 {
		t.Fatal(got, err)
	}
	const slack = 64 << 10 // of directories and the file system's own
	near := func(name string, got, want int64) {
		t.Helper()
		if got < want || got > want+slack {
			t.Errorf("%s: %d bytes, want about %d", name, got, want)
		}
	}
	near("a", got[0].Allocated, 1<<20)
	near("nothing", got[1].Allocated, 0)
	near("b without what a has", got[2].Allocated, 4<<20)
	near("a once more", got[3].Allocated, 0)
	shared := int64(0)
	if method == block.Reflink {
		shared = 4 << 20
	}
	if s := got[2].Shared; s != shared {
		t.Errorf("cloned by %s, it shares %d bytes", method, s)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	called := errors.New("called off")
	cancel(called)
	if _, err := tree.Measure(ctx, []string{a}); !errors.Is(err, called) {
		t.Errorf("got %v", err)
	}
}

func TestATreeIsListedAndRemoved(t *testing.T) {
	dir := t.TempDir()
	filled(t, filepath.Join(dir, "b", "x"), 1)
	filled(t, filepath.Join(dir, "a"), 1)
	tree := block.Tree{}
	for _, want := range [][]string{{"a", "b"}, {"a"}, {"a"}} {
		if got, err := tree.List(dir); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v", got, err)
		}
		if err := tree.Remove(filepath.Join(dir, "b")); err != nil {
			t.Error(err)
		}
	}
	if got, err := tree.List(filepath.Join(dir, "none")); err != nil || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
	_, err := tree.List(filepath.Join(dir, "a"))
	if f := fault.From(err); f == nil || f.Error() != `list "`+dir+`/a": not a directory` {
		t.Errorf("got %v", err)
	}
}
