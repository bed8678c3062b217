// Package ext4 lets mounted ext4 file systems fill their disks, and keeps them sparse.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Fill enlarges the file system whose directory is given to its device, and has the kernel leave unused inode
// tables alone from then on. It would write zeroes over them in the background, a 64th of the disk, and so fill
// the host's sparse file with what that holds as holes. While the file system grows the tables must be left to
// that background work, or growth itself writes those zeroes at once.
func Fill(device string, dir *os.File) error {
	have, room, err := blocks(device)
	if err == nil && room > have {
		err = errors.Join(option(dir, "init_itable"), resize(dir, room)) // a kernel that cannot do the first grows slowly
	}
	return errors.Join(err, KeepSparse(dir))
}

// KeepSparse does for a file system that is not to grow what Fill does for one that is.
func KeepSparse(dir *os.File) error { return option(dir, "noinit_itable") }

// option changes one option of a mounted file system. All others, and whether it may be written, stay as its
// owner has them.
func option(dir *os.File, name string) error {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(dir.Fd()), &st)
	if err == nil && st.Flags&unix.ST_RDONLY != 0 {
		err = unix.EROFS // kernels before 5.17 would make it writable
	}
	var fd int
	if err == nil {
		fd, err = unix.Fspick(int(dir.Fd()), "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	}
	if err == nil {
		err = errors.Join(unix.FsconfigSetFlag(fd, name), unix.FsconfigReconfigure(fd), unix.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("remount with %s: %w", name, err)
	}
	return nil
}

// iocResizeFS is EXT4_IOC_RESIZE_FS of the kernel's fs/ext4/ext4.h: _IOW('f', 16, __u64).
const iocResizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16

// resize enlarges the file system to a number of blocks.
func resize(dir *os.File, to uint64) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), iocResizeFS, uintptr(unsafe.Pointer(&to))); errno != 0 { //nolint:gosec // the ioctl takes a pointer
		return fmt.Errorf("enlarge the file system: %w", errno)
	}
	return nil
}

// blocks tells how many blocks the file system on a device has, and how many the device holds.
func blocks(device string) (have, room uint64, err error) {
	f, err := os.Open(filepath.Clean(device))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var super [1024]byte
	if _, err := f.ReadAt(super[:], 1024); err != nil {
		return 0, 0, err
	}
	size, err := f.Seek(0, 2) // of a block device: its capacity
	if err != nil {
		return 0, 0, err
	}
	have, room = parse(super, size)
	return have, room, nil
}

// parse reads a superblock: how many blocks the file system has, and how many its device holds.
func parse(super [1024]byte, deviceSize int64) (have, room uint64) {
	le := binary.LittleEndian
	const offBlocksLo, offLogBlockSize, offBlocksHi = 0x4, 0x18, 0x150
	have = uint64(le.Uint32(super[offBlocksHi:]))<<32 | uint64(le.Uint32(super[offBlocksLo:]))
	return have, uint64(deviceSize) >> (10 + le.Uint32(super[offLogBlockSize:]))
}
