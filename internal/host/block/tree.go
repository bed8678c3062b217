package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/usage"
)

// Tree looks at directories, and removes them.
type Tree struct{}

// List names what is in a directory. One that is not there has nothing.
func (Tree) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.System(err, "list", dir)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Remove removes a directory with all that is in it. Gone is success.
func (Tree) Remove(dir string) error { return fault.System(os.RemoveAll(dir), "remove", dir) }

// Measure tells what each of the paths occupies with all that is below it. A file with several names counts where it is
// met first, and what vanishes meanwhile for nothing.
func (Tree) Measure(ctx context.Context, paths []string) ([]usage.Size, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	sizes := make([]usage.Size, len(paths))
	for i, path := range paths {
		err := filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(path, &st)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if id := (inode{st.Dev, st.Ino}); seen[id] {
				return nil
			} else if !e.IsDir() {
				seen[id] = true
			}
			sizes[i].Allocated += st.Blocks * 512
			if !e.Type().IsRegular() || st.Blocks == 0 {
				return nil
			}
			shared, err := shared(ctx, path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			sizes[i].Shared += min(shared, st.Blocks*512)
			return err
		})
		if err != nil {
			return nil, fault.System(err, "measure", path)
		}
	}
	return sizes, nil
}

// The kernel's FIEMAP, of linux/fiemap.h.
const (
	fsIocFiemap        = 0xc020660b
	fiemapExtentLast   = 0x1
	fiemapExtentShared = 0x2000
	fiemapBatch        = 128
)

type fiemapExtent struct {
	Logical, Physical, Length uint64
	_                         [2]uint64
	Flags                     uint32
	_                         [3]uint32
}

type fiemap struct {
	Start, Length                  uint64
	Flags, Mapped, Count, reserved uint32
	Extents                        [fiemapBatch]fiemapExtent
}

// shared is how many bytes of a file lie in blocks that other files have too. A file system that cannot tell shares none.
func shared(ctx context.Context, path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var sum int64
	m := new(fiemap)
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		m.Length, m.Count, m.Mapped = ^uint64(0)-m.Start, fiemapBatch, 0
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(m))) //nolint:gosec // the ioctl takes a pointer, and m has the kernel's layout
		runtime.KeepAlive(f)
		switch {
		case errno == unix.EOPNOTSUPP || errno == unix.ENOTTY:
			return 0, nil
		case errno != 0:
			return 0, fmt.Errorf("map extents of %s: %w", path, errno)
		}
		for _, e := range m.Extents[:min(m.Mapped, fiemapBatch)] {
			if e.Flags&fiemapExtentShared != 0 {
				sum += int64(e.Length)
			}
			m.Start = e.Logical + e.Length
			if e.Flags&fiemapExtentLast != 0 {
				return sum, nil
			}
		}
		if m.Mapped == 0 {
			return sum, nil
		}
	}
}
