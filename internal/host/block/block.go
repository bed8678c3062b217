// Package block makes and measures the files that VMs use as disks.
//
// A fresh disk is not synced to stable storage here: the guest's first flush does that, since the
// drives' Writeback cache turns it into an fsync of the whole file, cloned extents and new length
// included. Until then the disk holds nothing that its image does not.
package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/vm"
)

// The ways of making a clone.
const (
	Reflink = "reflink" // shares its blocks with the source until they are written
	Copy    = "copy"    // has blocks of its own, and the source's holes
)

// Disks makes disks. Its zero value is ready.
type Disks struct{}

// Clone makes dst a private copy of src, size bytes long, or as long as src where size is 0, and says
// how: Reflink or Copy. It never shrinks and never overwrites. What it does not finish it removes.
// Growing costs nothing here: the tail is a hole, and the guest enlarges the file system.
func (Disks) Clone(ctx context.Context, src, dst string, size int64) (method string, err error) {
	return duplicate(ctx, src, dst, size, clone)
}

// Copy is Clone that shares no block with the source.
func (Disks) Copy(ctx context.Context, src, dst string, size int64) (method string, err error) {
	return duplicate(ctx, src, dst, size, func(ctx context.Context, to, from *os.File, size int64) (string, error) {
		return Copy, copySparse(ctx, to, from, size)
	})
}

func duplicate(ctx context.Context, src, dst string, size int64, fill func(ctx context.Context, to, from *os.File, size int64) (string, error)) (method string, err error) {
	from, err := os.Open(src)
	if err != nil {
		return "", fault.System(err, "clone disk", src)
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return "", fault.System(err, "clone disk", src)
	}
	if !info.Mode().IsRegular() {
		return "", fault.System(errors.New("it is not a regular file"), "clone disk", src)
	}
	if size == 0 {
		size = info.Size()
	}
	if size < info.Size() {
		return "", fault.New(fault.Invalid, "%s is less than the %s it must hold", vm.FormatSize(size), vm.FormatSize(info.Size())).
			WithOp("clone disk", dst).WithHint("choose at least %s", vm.FormatSize(info.Size()))
	}
	to, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fault.System(err, "clone disk", dst)
	}
	defer func() {
		if cerr := to.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			method, err = "", fault.System(errors.Join(err, os.Remove(dst)), "clone disk", dst)
		}
	}()
	method, err = fill(ctx, to, from, info.Size())
	if err == nil && size > info.Size() {
		err = to.Truncate(size)
	}
	return method, err
}

func clone(ctx context.Context, to, from *os.File, size int64) (string, error) {
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	switch {
	case err == nil:
		return Reflink, nil
	case cannotReflink(err):
		return Copy, copySparse(ctx, to, from, size)
	default:
		return "", err
	}
}

// cannotReflink tells a file system that cannot share blocks, or two of them, from a failure.
func cannotReflink(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY)
}

// copyStep is how much is copied between two looks at the context.
const copyStep = 64 << 20

// copySparse copies the data and leaves the holes out. It reads and writes: copy_file_range, which the Go library
// would take between files, shares blocks where it can.
func copySparse(ctx context.Context, to, from *os.File, size int64) error {
	buffer := make([]byte, 1<<20)
	into, of := struct{ io.Writer }{to}, struct{ io.Reader }{from}
	err := eachData(from, size, func(data, end int64) error {
		if _, err := from.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := to.Seek(data, io.SeekStart); err != nil {
			return err
		}
		for at := data; at < end; at += copyStep {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := io.CopyBuffer(into, io.LimitReader(of, min(copyStep, end-at)), buffer)
			if err == nil && n < min(copyStep, end-at) {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return to.Truncate(size)
}

// eachData calls visit with each stretch of the first size bytes of f that is no hole.
func eachData(f *os.File, size int64, visit func(from, to int64) error) error {
	for end := int64(0); end < size; {
		data, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		if end, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("find hole: %w", err)
		}
		if err := visit(data, end); err != nil {
			return err
		}
	}
	return nil
}

// Grow makes the file at path size bytes long where it is shorter. It never shrinks it. What it adds is a hole. The new
// length need not be durable: a guest that has filled the disk flushes it, and before that nothing depends on it.
func (Disks) Grow(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fault.System(err, "grow disk", path)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("it is not a regular file")
	case info.Size() < size:
		err = f.Truncate(size)
	}
	return fault.System(errors.Join(err, f.Close()), "grow disk", path)
}

// Exists reports whether path is a regular file.
func (Disks) Exists(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular(), err
}

// Reflinks tries whether files in dir can share their blocks.
func Reflinks(dir string) (bool, error) {
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(dir, ".reflink-")
		if err != nil {
			return false, err
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil {
			return false, err
		}
		files[i] = f
	}
	if _, err := files[0].Write(make([]byte, 4096)); err != nil {
		return false, err
	}
	err := unix.IoctlFileClone(int(files[1].Fd()), int(files[0].Fd()))
	if err != nil && cannotReflink(err) {
		return false, nil
	}
	return err == nil, err
}

// Space is how many bytes the file system of dir has, and how many of them are left for ordinary users.
// What was written but has no place on the disk yet counts as taken.
func Space(dir string) (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// Identify is by what the file at path is told from others, and from itself once it was touched.
func Identify(path string) (vm.File, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return vm.File{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return vm.File{Inode: st.Ino, Size: st.Size, Changed: time.Unix(st.Ctim.Unix())}, nil
}

// Allocated is how many bytes a file occupies. Blocks it shares with another count for both.
func Allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * 512, nil
}
