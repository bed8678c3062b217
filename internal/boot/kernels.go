package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/vm"
)

// Kernels puts kernels and initrds into VMs' directories. An initrd is made once for each pair of
// agent and modules and then hard-linked, so that a start copies nothing.
type Kernels struct {
	Layout vm.Layout
	Agent  string // path of the agent binary

	mu    sync.Mutex
	agent fingerprint
}

// fingerprint remembers a file's digest for as long as the file stays the same.
type fingerprint struct {
	info fs.FileInfo
	sum  string
}

// Link places the image's kernel, and an initrd of the agent with that kernel's modules, into dir.
func (k *Kernels) Link(ctx context.Context, imageID, dir string) error {
	k.mu.Lock() // an initrd that is about to be linked is no spare one
	defer k.mu.Unlock()
	initrd, err := k.initrd(ctx, imageID)
	if err != nil {
		return err
	}
	from := k.Layout.Image(imageID)
	return errors.Join(
		relink(filepath.Join(from, image.FileKernel), filepath.Join(dir, vm.FileKernel)),
		relink(initrd, filepath.Join(dir, vm.FileInitrd)),
	)
}

// initrd returns the path of the initrd for the image's modules and the agent as it is now. k.mu is held.
func (k *Kernels) initrd(ctx context.Context, imageID string) (string, error) {
	if err := k.checkAgent(); err != nil {
		return "", err
	}
	dir := filepath.Join(k.Layout.Boot(), k.agent.sum+"-"+imageID)
	path := filepath.Join(dir, "initrd")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fault.System(err, "make initrd", dir)
	}
	return path, fault.System(k.make(path, imageID), "make initrd", path)
}

func (k *Kernels) make(path, imageID string) error {
	agent, err := os.Open(k.Agent)
	if err != nil {
		return err
	}
	defer agent.Close()
	st, err := agent.Stat()
	if err != nil {
		return err
	}
	modules, err := os.Open(filepath.Join(k.Layout.Image(imageID), image.FileModules))
	if err != nil {
		return err
	}
	defer modules.Close()
	tmp, err := os.CreateTemp(filepath.Dir(path), ".initrd-")
	if err != nil {
		return err
	}
	err = errors.Join(Initrd(tmp, agent, st.Size(), modules), tmp.Sync(), tmp.Close())
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), path)
}

// CheckAgent returns the path of the agent that guests get, or why it cannot be read.
func (k *Kernels) CheckAgent() (path string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Agent, k.checkAgent()
}

// AgentDigest tells the agent that guests get from every other build of it.
func (k *Kernels) AgentDigest() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.checkAgent()
	return k.agent.sum, err
}

func (k *Kernels) checkAgent() error {
	if err := k.fingerprintAgent(); err != nil {
		return fault.New(fault.Requirement, "the agent cannot be read: %w", err).WithOp("make initrd", k.Agent).
			WithHint("install banger-agent beside bangerd, or set agent_bin")
	}
	return nil
}

// fingerprintAgent reads the agent again only when its file has changed.
func (k *Kernels) fingerprintAgent() error {
	info, err := os.Stat(k.Agent)
	if err != nil {
		return err
	}
	if old := k.agent.info; old != nil && os.SameFile(old, info) && old.ModTime().Equal(info.ModTime()) && old.Size() == info.Size() {
		return nil
	}
	f, err := os.Open(k.Agent)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	k.agent = fingerprint{info: info, sum: hex.EncodeToString(h.Sum(nil)[:6])}
	return nil
}

// Clean removes initrds of other builds of the agent, and of images that are gone. VMs that were started with one have a hard link
// of their own.
func (k *Kernels) Clean() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fingerprintAgent(); err != nil {
		return nil // without an agent nothing is known to be old
	}
	dirs, err := filepath.Glob(filepath.Join(k.Layout.Boot(), "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		imageID, current := strings.CutPrefix(filepath.Base(d), k.agent.sum+"-")
		if _, err := os.Stat(k.Layout.Image(imageID)); !current || errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.RemoveAll(d))
		}
	}
	return errors.Join(errs...)
}

// Spare lists the directories of initrds that no VM has a link of.
func (k *Kernels) Spare() ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(k.Layout.Boot(), "*"))
	var spare []string
	for _, d := range dirs {
		if unlinked(d) {
			spare = append(spare, d)
		}
	}
	return spare, err
}

// Discard removes one, unless a VM has it by now. Gone is success.
func (k *Kernels) Discard(dir string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !unlinked(dir) {
		return nil
	}
	return fault.System(os.RemoveAll(dir), "remove initrd", dir)
}

// unlinked reports whether the initrd in dir has no other name.
func unlinked(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, "initrd"))
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 1
}

// relink makes dst a hard link to src, in place of what was there. A file that is too often linked,
// or on another file system, is copied.
func relink(src, dst string) error {
	if err := os.Remove(dst); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.System(err, "link boot file", dst)
	}
	err := os.Link(src, dst)
	if errors.Is(err, syscall.EMLINK) || errors.Is(err, syscall.EXDEV) {
		return fault.System(copyFile(src, dst), "copy boot file", dst)
	}
	return fault.System(err, "link boot file", dst)
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	return nil
}
