package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// maxEdited bounds a file that we change, in bytes.
const maxEdited = 1 << 20

// put makes path a regular file with this content and mode. Nothing is written when it is one
// already. What is lost in a crash is written again at the next boot, so nothing is synced.
func put(root *os.Root, name, content string, mode fs.FileMode) error {
	if fi, err := root.Lstat(name); err == nil && fi.Mode() == mode && fi.Size() == int64(len(content)) {
		if old, err := read(root, name, int64(len(content))); err == nil && old == content {
			return nil
		}
	}
	return replace(root, name, content, mode)
}

// edit changes a file that may hold the user's own lines. A missing one is created with mode; one
// that exists keeps its mode, and becomes a file of its own where it was a link.
func edit(root *os.Root, name string, mode fs.FileMode, change func(old string) string) error {
	old, err := read(root, name, maxEdited)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		fi, err := root.Stat(name)
		if err != nil {
			return err
		}
		mode = fi.Mode().Perm()
	}
	content := change(old)
	if content == old {
		return nil
	}
	return replace(root, name, content, mode)
}

// read returns a regular file's content.
func read(root *os.Root, name string, limit int64) (string, error) {
	// Non-blocking: it may be a pipe that nobody writes to.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "", errors.Join(err, fmt.Errorf("/%s is not a regular file", name))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("/%s is larger than %d bytes", name, limit)
	}
	return string(b), err
}

// replace writes a file beside the old one and takes its place. It is not synced, which would cost a guest that goes on
// from a snapshot half of the time that it takes to become another: the root is ext4, which has the new content on the disk
// before a name that another file had leads to it.
func replace(root *os.Root, name, content string, mode fs.FileMode) error {
	if err := mkdir(root, path.Dir(name), 0o755); err != nil {
		return err
	}
	fresh, err := clear(root, name)
	if err != nil {
		return err
	}
	f, err := root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return root.Rename(fresh, name)
}

// link makes name a symbolic link to target.
func link(root *os.Root, target, name string) error {
	if old, err := root.Readlink(name); err == nil && old == target {
		return nil
	}
	fresh, err := clear(root, name)
	if err != nil {
		return err
	}
	if err := root.Symlink(target, fresh); err != nil {
		return err
	}
	return root.Rename(fresh, name)
}

// clear returns the name under which a file's successor is made, and removes what a crash left there.
func clear(root *os.Root, name string) (string, error) {
	fresh := name + ".banger-new"
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return fresh, nil
}

func mkdir(root *os.Root, name string, mode fs.FileMode) error {
	if fi, err := root.Stat(name); err == nil && fi.IsDir() {
		return nil
	}
	return root.MkdirAll(name, mode)
}
