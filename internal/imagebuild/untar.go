package imagebuild

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Bounds of a foreign root file system. They keep a hostile or broken archive from filling the host.
const (
	maxFiles = 4_000_000
	maxTree  = 64 * vm.GiB
)

// untar unpacks a tar stream, plain or packed, into dir as root would: owners, modes, links, devices
// and file capabilities as they are. The archive is hostile: nothing of it may land outside dir.
func untar(ctx context.Context, r io.Reader, dir string, progress func(files int, size int64)) error {
	plain, err := decompress(r)
	if err != nil {
		return unreadable(err)
	}
	defer plain.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, dir: dir}
	tr := tar.NewReader(plain)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return unreadable(err)
		}
		u.files++
		u.size += h.Size
		if u.files > maxFiles || u.size > maxTree {
			return fault.New(fault.Invalid, "it holds more than %d files or %s", maxFiles, vm.FormatSize(maxTree))
		}
		if err := u.entry(h, tr); err != nil {
			return fault.New(fault.Invalid, "entry %q: %w", printable(h.Name, 200), err)
		}
		if u.files%500 == 0 {
			progress(u.files, u.size)
		}
	}
	if u.files == 0 {
		return fault.New(fault.Invalid, "the archive is empty")
	}
	return u.stampDirs()
}

func unreadable(err error) error {
	return fault.New(fault.Invalid, "the archive cannot be read: %w", err).
		WithHint("give a tar archive, plain or packed by gzip, zstd, xz or bzip2")
}

type unpacker struct {
	root  *os.Root
	dir   string
	files int
	size  int64
	dirs  []*tar.Header // stamped last: making a file in one changes its time
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		name = "."
	}
	if strings.ContainsRune(name, 0) || len(name) > 4096 {
		return errors.New("its name is not valid")
	}
	if name != "." {
		if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		// A later entry replaces an earlier one, but never a directory that others are in.
		if st, err := u.root.Lstat(name); err == nil && (!st.IsDir() || h.Typeflag != tar.TypeDir) {
			if err := u.root.Remove(name); err != nil {
				return err
			}
		}
	}
	perm := h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		u.dirs = append(u.dirs, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
	case tar.TypeLink:
		return u.root.Link(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := u.node(h, name); err != nil {
			return err
		}
	default:
		return nil // global headers and vendors' extensions describe, they are no files
	}
	return u.stamp(h, name)
}

// node makes a device or FIFO. There is no mknod within an os.Root, so its parent is opened first and
// the node made by the parent's descriptor: no later link can lead it elsewhere.
func (u *unpacker) node(h *tar.Header, name string) error {
	parent, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	mode := uint32(h.FileInfo().Mode().Perm())
	switch h.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		mode |= unix.S_IFIFO
	}
	return unix.Mknodat(int(parent.Fd()), path.Base(name), mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// stamp gives an entry its owner, then its mode (changing the owner clears set-id bits), then its
// capabilities and time.
func (u *unpacker) stamp(h *tar.Header, name string) error {
	if err := u.root.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := u.root.Chmod(name, fileMode(h)); err != nil {
			return err
		}
	}
	if value, ok := h.PAXRecords["SCHILY.xattr.security.capability"]; ok && regular(h) {
		f, err := u.root.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(int(f.Fd()), "security.capability", []byte(value), 0)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("set its capabilities: %w", err)
		}
	}
	if regular(h) {
		return u.root.Chtimes(name, h.ModTime, h.ModTime)
	}
	return nil
}

func regular(h *tar.Header) bool { return h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse }

func fileMode(h *tar.Header) fs.FileMode {
	return h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
}

func (u *unpacker) stampDirs() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		name := strings.TrimPrefix(path.Clean("/"+u.dirs[i].Name), "/")
		if name == "" {
			name = "."
		}
		if err := errors.Join(u.stamp(u.dirs[i], name), u.root.Chtimes(name, u.dirs[i].ModTime, u.dirs[i].ModTime)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(u.dir, name), err)
		}
	}
	return nil
}

// decompress tells the packer by its magic number.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 1<<20)
	head, _ := br.Peek(6) // a shorter stream is not packed, and fails as a tar
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		x, err := xz.NewReader(br, 0)
		return io.NopCloser(x), err
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(br)), nil
	}
	return io.NopCloser(br), nil
}
