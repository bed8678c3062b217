// Package cpio writes the archives that the kernel unpacks as an initrd: the "newc" format of
// Linux's Documentation/driver-api/early-userspace/buffer-format.rst. Archives may be concatenated.
// Equal input gives equal bytes: there are no time stamps, and everything belongs to root.
package cpio

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// Writer writes one archive.
type Writer struct {
	w     io.Writer
	n     int64
	inode int
	made  map[string]bool // directories
	err   error
}

// NewWriter returns a writer of an archive to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, made: map[string]bool{".": true, "": true}}
}

// File types of a mode, as in stat(2).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
)

// File adds a regular file of size bytes from r, and its parent directories where they are missing.
func (c *Writer) File(name string, perm uint32, size int64, r io.Reader) error {
	c.parents(name)
	c.header(name, typeFile|perm, size, 0, 0)
	if c.err == nil {
		n, err := io.Copy(c, io.LimitReader(r, size))
		if err == nil && n != size {
			err = fmt.Errorf("file %s: %d bytes instead of %d: %w", name, n, size, io.ErrUnexpectedEOF)
		}
		c.fail(err)
	}
	c.pad()
	return c.err
}

// Dir adds a directory and its parents.
func (c *Writer) Dir(name string) error {
	name = clean(name)
	if c.made[name] {
		return c.err
	}
	c.parents(name)
	c.made[name] = true
	c.header(name, typeDir|0o755, 0, 0, 0)
	return c.err
}

// Symlink adds a symbolic link.
func (c *Writer) Symlink(name, target string) error {
	c.parents(name)
	c.header(name, typeLink|0o777, int64(len(target)), 0, 0)
	c.write(target)
	c.pad()
	return c.err
}

// CharDevice adds a character device node.
func (c *Writer) CharDevice(name string, perm uint32, major, minor int) error {
	c.parents(name)
	c.header(name, typeChar|perm, 0, major, minor)
	return c.err
}

// Close ends the archive. It does not close the underlying writer.
func (c *Writer) Close() error {
	c.inode = -1
	c.header("TRAILER!!!", 0, 0, 0, 0)
	for c.n%512 != 0 && c.err == nil {
		c.write("\x00")
	}
	return c.err
}

func (c *Writer) parents(name string) {
	if dir := path.Dir(clean(name)); dir != "." {
		_ = c.Dir(dir) // kept in c.err
	}
}

func (c *Writer) header(name string, mode uint32, size int64, major, minor int) {
	if size >= 1<<32 {
		c.fail(fmt.Errorf("file %s: %d bytes do not fit in the format", name, size))
		return
	}
	name = clean(name)
	c.inode++
	links := 1
	if mode&0o170000 == typeDir {
		links = 2
	}
	c.write(fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0, name))
	c.pad()
}

// Write implements io.Writer over the archive's own count of bytes.
func (c *Writer) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.fail(err)
	return n, c.err
}

func (c *Writer) write(s string) { _, _ = c.Write([]byte(s)) } // kept in c.err

func (c *Writer) pad() {
	if rest := c.n % 4; rest != 0 {
		c.write("\x00\x00\x00"[:4-rest])
	}
}

func (c *Writer) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
