package block_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/host/block"
)

// memory writes what a guest's memory may look like, from a word for each 64 KiB: 0 is zeros, x is bytes, z is
// zeros with one byte near the end, _ is a hole. tail is appended.
func memory(t *testing.T, path, words string, tail []byte) []byte {
	t.Helper()
	const step = 64 << 10
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, w := range words {
		part := make([]byte, step)
		switch w {
		case 'x':
			part = bytes.Repeat([]byte("banger\n."), step/8)
		case 'z':
			part[step-2] = 1
		case '_':
			continue
		}
		if _, err := f.WriteAt(part, int64(i)*step); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(len(words)) * step); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(tail, int64(len(words))*step); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // what has no place on the disk yet cannot be counted
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestZerosBecomeHoles(t *testing.T) {
	long := make([]byte, 40)
	for i := range long {
		long[i] = "0x00z_00"[i%8]
	}
	for name, c := range map[string]struct {
		words string
		tail  []byte
		least int // parts of 64 KiB that are holes afterwards, at least
	}{
		"nothing": {},
		"data":    {words: "xxxx"},
		"zeros":   {words: "00000000000000000000", least: 20},
		"mixed":   {words: string(long), least: 25},
		"a tail":  {words: "x0", tail: make([]byte, 100), least: 1},
		"a byte":  {words: "00", tail: []byte{1}, least: 2},
	} {
		path := filepath.Join(t.TempDir(), "memory")
		want := memory(t, path, c.words, c.tail)
		for range 2 {
			if err := (block.Disks{}).PunchZeros(t.Context(), path); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: it reads otherwise than before (%v)", name, err)
			}
		}
		used, err := block.Allocated(path)
		if most := int64(len(want)-c.least*64<<10) + 4096; err != nil || used > most {
			t.Errorf("%s: it occupies %d bytes, more than %d (%v)", name, used, most, err)
		}
	}
}

func TestPunchingZerosFails(t *testing.T) {
	dir := t.TempDir()
	if err := (block.Disks{}).PunchZeros(t.Context(), filepath.Join(dir, "none")); err == nil ||
		err.Error() != `make sparse "`+dir+`/none": no such file or directory` {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(dir, "memory")
	memory(t, path, "x0x", nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	called := errors.New("called off")
	cancel(called)
	if err := (block.Disks{}).PunchZeros(ctx, path); !errors.Is(err, called) {
		t.Errorf("got %v", err)
	}
}
