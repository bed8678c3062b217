package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/ext4"
	"banger/internal/agent/settings"
)

// Rename gives the guest another hostname, now and for its next boot.
func (m *Machine) Rename(hostname string) error {
	if err := setHostname(hostname); err != nil {
		return err
	}
	root, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return settings.Hostname(root, hostname)
}

func setHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set the hostname: %w", err)
	}
	return nil
}

// growStep is the time between two looks whether a disk has become larger: the kernel hears of it by an
// interrupt.
const growStep = 20 * time.Millisecond

// Grow enlarges the ext4 on a device once that has become as large as size, wherever it is mounted.
func (m *Machine) Grow(ctx context.Context, device string, size int64) error {
	var disk unix.Stat_t
	if err := unix.Stat(device, &disk); err != nil {
		return fmt.Errorf("look at %s: %w", device, err)
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	at, err := mountedAt(mounts, disk.Rdev)
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	if err := awaitSize(ctx, device, size); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Clean(at))
	if err != nil {
		return err
	}
	defer dir.Close()
	var mounted unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &mounted); err != nil {
		return err
	}
	if mounted.Dev != disk.Rdev { // somebody has mounted over it
		return fmt.Errorf("%s: something else is mounted at %s", device, at)
	}
	return ext4.Fill(device, dir)
}

func awaitSize(ctx context.Context, device string, size int64) error {
	for {
		f, err := os.Open(filepath.Clean(device))
		if err != nil {
			return err
		}
		now, err := f.Seek(0, io.SeekEnd)
		if err = errors.Join(err, f.Close()); err != nil || now >= size {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has %d bytes, not yet %d", device, now, size)
		case <-time.After(growStep):
		}
	}
}

// maxMounts bounds how much of the list of mounts is read: the guest's users can make it long.
const maxMounts = 1 << 20

// mountedAt finds where the root of the ext4 on a device is mounted, in a list as in proc_pid_mountinfo(5).
func mountedAt(mountinfo io.Reader, device uint64) (string, error) {
	want := strconv.Itoa(int(unix.Major(device))) + ":" + strconv.Itoa(int(unix.Minor(device)))
	sc := bufio.NewScanner(io.LimitReader(mountinfo, maxMounts))
	for sc.Scan() {
		before, after, ok := strings.Cut(sc.Text(), " - ")
		f := strings.Fields(before)
		if ok && len(f) >= 5 && f[2] == want && f[3] == "/" && strings.HasPrefix(after, "ext4 ") {
			return unescape(f[4]), nil
		}
	}
	if err := sc.Err(); err != nil {
		return "", err
	}
	return "", errors.New("no ext4 of it is mounted")
}

// unescape undoes what the kernel does to a mount point's spaces, tabs, line feeds and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
