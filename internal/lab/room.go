package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const roomPrefix = "banger-lab-run-"

// room makes a directory for one run and returns what removes it. It is locked while its run lives,
// so that the rooms of runs which were killed can be told, and are removed here. Rooms are in the
// directory of temporary files as its path is short: a Unix socket's name has 107 bytes.
func (l *Lab) room(ctx context.Context) (dir string, leave func(), err error) {
	// Nobody sweeps between the making of a room and its locking.
	door, err := os.OpenFile(filepath.Join(l.Cache, "rooms.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, err
	}
	defer door.Close()
	if err := flock(ctx, door); err != nil {
		return "", nil, err
	}
	if err := sweep(os.TempDir()); err != nil {
		return "", nil, err
	}
	dir, err = os.MkdirTemp("", roomPrefix)
	if err != nil {
		return "", nil, err
	}
	held, err := lockDir(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func() { _, _ = os.RemoveAll(dir), held.Close() }, nil // what stays is swept by the next run
}

// sweep removes the rooms of our own that nobody is in.
func sweep(tmp string) error {
	rooms, err := filepath.Glob(filepath.Join(tmp, roomPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range rooms {
		held, err := lockDir(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			continue // someone is in, has just left, or it is another user's
		}
		if err == nil {
			err = errors.Join(os.RemoveAll(dir), held.Close())
		}
		if err != nil {
			return fmt.Errorf("remove what a killed run left: %w", err)
		}
	}
	return nil
}

// processor chooses one of the machine's processors for an emulator, one that no other has while there is one. All of an
// emulator's threads share it: QEMU changes what an emulated SVM processor is to be interrupted by without a lock, and two
// threads that run at once lose some of it, and then a guest or the lab host.
func (l *Lab) processor() (cpu int, vacate func(), err error) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return 0, nil, err
	}
	var all []int
	for cpu := 0; len(all) < may.Count(); cpu++ {
		if may.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	for _, cpu := range all {
		f, err := os.OpenFile(filepath.Join(l.Cache, fmt.Sprintf("processor-%d.lock", cpu)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return 0, nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return cpu, func() { _ = f.Close() }, nil
		}
		_ = f.Close() // another's
	}
	return all[os.Getpid()%len(all)], func() {}, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
