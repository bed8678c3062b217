package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/procnet"
)

// Bounds of sshd's restart.
const (
	sshBudget = 5 * time.Second
	sshStep   = 5 * time.Millisecond
)

// reloadSSH has sshd take its host keys from their files. From OpenSSH 9.8 on, where a program of its own serves each
// connection, the listener keeps them in memory; older ones read them for each connection, and are left alone.
func reloadSSH(ctx context.Context) error {
	if !keepsHostKeys("/") {
		return nil
	}
	var errs []error
	for _, pid := range running("sshd") {
		errs = append(errs, restartListener(ctx, pid))
	}
	return errors.Join(errs...)
}

// keepsHostKeys reports whether a root has an OpenSSH of 9.8 or later, wherever its distribution puts its programs.
func keepsHostKeys(root string) bool {
	return slices.ContainsFunc([]string{"lib/openssh", "libexec/openssh", "lib/ssh", "libexec"}, func(dir string) bool {
		_, err := os.Stat(filepath.Join(root, "usr", dir, "sshd-session"))
		return err == nil
	})
}

// running returns the processes of a name.
func running(name string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && line("/proc/"+e.Name()+"/comm") == name {
			pids = append(pids, pid)
		}
	}
	return pids
}

// restartListener tells a process to begin anew, and waits until it listens again. One that does not listen in the
// guest's own network, such as a container's, is left alone.
func restartListener(ctx context.Context, pid int) error {
	had, err := listensOn(pid)
	if ended(err) || err == nil && len(had) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sshBudget)
	defer cancel()
	if err := unix.Kill(pid, unix.SIGHUP); ended(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("restart sshd: %w", err)
	}
	for {
		now, err := listensOn(pid)
		if err != nil {
			return fmt.Errorf("await sshd's restart: %w", err)
		}
		// Until it has heard the signal it listens as before.
		if len(now) > 0 && !slices.ContainsFunc(now, func(s string) bool { return slices.Contains(had, s) }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sshd does not listen again after %v: its host key may be the one before", sshBudget)
		case <-time.After(sshStep):
		}
	}
}

// ended reports whether an error is that of a process which is no more, as one that served a connection.
func ended(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// listensOn returns the inodes of the TCP sockets on which a process listens.
func listensOn(pid int) ([]string, error) {
	sockets, err := procnet.Listening("/proc/net")
	if err != nil {
		return nil, err
	}
	inodes, err := procnet.Sockets("/proc/" + strconv.Itoa(pid))
	return slices.DeleteFunc(inodes, func(inode string) bool {
		return !slices.ContainsFunc(sockets, func(s procnet.Socket) bool { return s.Inode == inode })
	}), err
}
