package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const arch = runtime.GOARCH

// mountKernel mounts what the kernel offers.
func mountKernel() error {
	for _, m := range []struct {
		fstype, path string
		flags        uintptr
		data         string
	}{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
	} {
		if err := os.MkdirAll(m.path, 0o755); err != nil { //nolint:gosec // as everywhere
			return err
		}
		if err := unix.Mount(m.fstype, m.path, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
}

// takeConsole opens the standard streams again on the console of devtmpfs: init inherits them, and
// the node that the initrd was packed with goes away.
func takeConsole() error {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	for std := range 3 {
		if err := unix.Dup3(fd, std, 0); err != nil {
			return fmt.Errorf("open the console: %w", err)
		}
	}
	return unix.Close(fd)
}

// loadModules loads the modules whose paths the list names, one a line, in the order of their
// dependencies.
func loadModules(list string) error {
	text, err := os.ReadFile(filepath.Clean(list))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel with everything built in
	}
	if err != nil {
		return err
	}
	for path := range strings.FieldsSeq(string(text)) {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// awaitFile waits until a device node is there.
func awaitFile(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, deviceBudget)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no %s appeared within %v", path, deviceBudget)
		case <-tick.C:
		}
	}
}
