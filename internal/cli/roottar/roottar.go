// Package roottar writes a directory tree that is to become a root file system as a tar stream:
// numeric owners, modes with set-id bits, hard links, devices, symlinks as they are, and file
// capabilities.
package roottar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

const capability = "security.capability"

// Write streams the tree at dir to w in lexical order. It never follows a symlink below dir and does
// not descend into other file systems: a tree in use as a chroot has /proc mounted, which is no part
// of it. Sockets are left out.
func Write(ctx context.Context, w io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.New(fault.Invalid, "%w", err).WithOp("read tree", dir).WithHint("name a directory that holds a root file system")
	}
	defer root.Close()
	top, err := root.Stat(".")
	if err != nil {
		return fault.From(err).WithOp("read tree", dir)
	}
	t := &tree{root: root, dir: dir, device: stat(top).dev, tw: tar.NewWriter(w), links: map[uint64]string{}}
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			return unreadable(filepath.Join(dir, path), err)
		}
		return t.entry(path, d)
	})
	if err != nil {
		return err
	}
	return t.tw.Close()
}

type tree struct {
	root   *os.Root
	dir    string
	device uint64
	tw     *tar.Writer
	links  map[uint64]string // first path of each inode that has several
}

func (t *tree) entry(path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return unreadable(filepath.Join(t.dir, path), err)
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	h, err := t.header(path, info)
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && h.Typeflag == tar.TypeReg {
		return t.file(path, info, h)
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("stream %s: %w", path, err)
	}
	if d.IsDir() && stat(info).dev != t.device {
		return fs.SkipDir
	}
	return nil
}

func (t *tree) header(path string, info fs.FileInfo) (*tar.Header, error) {
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if target, err = t.root.Readlink(path); err != nil {
			return nil, unreadable(filepath.Join(t.dir, path), err)
		}
	}
	h, err := tar.FileInfoHeader(nameless{info}, target)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err).WithOp("read", filepath.Join(t.dir, path))
	}
	h.Name = "./" + path
	if path == "." {
		h.Name = "./"
	} else if info.IsDir() {
		h.Name += "/"
	}

	if st := stat(info); st.links > 1 && !info.IsDir() && st.dev == t.device {
		if first, seen := t.links[st.ino]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return h, nil
		}
		t.links[st.ino] = h.Name
	}
	return h, nil
}

func (t *tree) file(path string, info fs.FileInfo, h *tar.Header) error {
	full := filepath.Join(t.dir, path)
	f, err := t.root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // in case it has become a FIFO
	if err != nil {
		return unreadable(full, err)
	}
	defer f.Close()
	now, err := f.Stat()
	if err != nil {
		return unreadable(full, err)
	}
	// The name may have become a symlink since it was listed.
	if !os.SameFile(info, now) || now.Size() != info.Size() {
		return changed(full)
	}
	caps, err := capabilities(f)
	if err != nil {
		return unreadable(full, err)
	}
	if caps != "" {
		h.PAXRecords = map[string]string{"SCHILY.xattr." + capability: caps}
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("stream %s: %w", path, err)
	}
	n, err := io.Copy(t.tw, io.LimitReader(f, h.Size))
	if err != nil {
		return fmt.Errorf("stream %s: %w", path, err)
	}
	if n < h.Size {
		return changed(full)
	}
	return nil
}

// capabilities reads the file's capability attribute, 24 bytes in its newest form; "" when it has none.
func capabilities(f *os.File) (string, error) {
	var buf [64]byte
	n, err := unix.Fgetxattr(int(f.Fd()), capability, buf[:])
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", capability, err)
	}
	return string(buf[:n]), nil
}

// nameless keeps package tar from looking up owners' names: those of this host mean nothing in a guest.
type nameless struct{ fs.FileInfo }

func (nameless) Uname() (string, error) { return "", nil }
func (nameless) Gname() (string, error) { return "", nil }

// identity is what tells a file from every other.
type identity struct{ dev, ino, links uint64 }

func stat(info fs.FileInfo) identity {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}
	}
	return identity{st.Dev, st.Ino, uint64(st.Nlink)} //nolint:unconvert // narrower on arm64
}

func unreadable(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fault.New(fault.Forbidden, "%w", err).WithOp("read", path).
			WithHint("a root file system has files that only root reads: run the command with sudo")
	}
	return fault.New(fault.Invalid, "%w", err).WithOp("read", path)
}

func changed(path string) error {
	return fault.New(fault.InUse, "it changed while it was read").WithOp("read", path).
		WithHint("import a tree that nobody is using")
}
