package initrd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
)

// mountDisks mounts the root disk at newRoot and the others inside it.
func (b *Boot) mountDisks(ctx context.Context, mounts []agentproto.Mount) error {
	rootDisk := agentproto.Mount{Device: rootDevice, Path: "/", FSType: "ext4", Grow: true}
	if err := mount(ctx, rootDisk, newRoot); err != nil {
		return err
	}
	root, err := os.OpenRoot(newRoot)
	if err != nil {
		return err
	}
	defer root.Close()
	b.settle(root, rootDisk)
	for _, m := range mounts {
		if err := mountInside(ctx, root, m); err != nil {
			return err
		}
		b.settle(root, m)
	}
	return nil
}

// mountInside mounts a disk below the root, by a descriptor: the path may hold links of the guest's.
func mountInside(ctx context.Context, root *os.Root, m agentproto.Mount) error {
	if err := root.MkdirAll(inside(m), 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.Path, err)
	}
	dir, err := root.Open(inside(m))
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Path, err)
	}
	defer dir.Close()
	return mount(ctx, m, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
}

// inside is a mount's path as seen from the root.
func inside(m agentproto.Mount) string {
	return "." + path.Clean("/"+m.Path)
}

func mount(ctx context.Context, m agentproto.Mount, dir string) error {
	if err := awaitFile(ctx, m.Device); err != nil {
		return err
	}
	data := ""
	if m.FSType == "ext4" {
		data = "errors=remount-ro" // a damaged file system is kept from further damage
	}
	if err := unix.Mount(m.Device, dir, m.FSType, 0, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.Device, m.Path, err)
	}
	return nil
}

// settle lets a mounted file system fill its disk, and keeps it sparse. One that cannot serves as it is:
// what is on it matters more.
func (b *Boot) settle(root *os.Root, m agentproto.Mount) {
	if m.FSType != "ext4" {
		return
	}
	dir, err := root.Open(inside(m)) // opened after the mount, so it is the mounted one
	if err == nil {
		if m.Grow {
			err = growExt4(m.Device, dir)
		}
		err = errors.Join(err, keepSparse(dir))
		_ = dir.Close()
	}
	if err != nil {
		b.Log.Error("settle the file system", "device", m.Device, "error", err)
	}
}

// keepSparse has the kernel leave unused inode tables alone. It would write zeroes over them in the
// background, a 64th of the disk, and so fill the host's sparse file with what that holds as holes. It
// must follow growth: growth without lazy tables writes those zeroes at once.
func keepSparse(dir *os.File) error {
	if err := unix.Mount("", fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), "", unix.MS_REMOUNT, "noinit_itable"); err != nil {
		return fmt.Errorf("remount with noinit_itable: %w", err)
	}
	return nil
}

// ext4IocResizeFS is EXT4_IOC_RESIZE_FS of the kernel's fs/ext4/ext4.h: _IOW('f', 16, __u64).
const ext4IocResizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16

// growExt4 enlarges the ext4 whose directory is given to its device.
func growExt4(device string, dir *os.File) error {
	f, err := os.Open(filepath.Clean(device))
	if err != nil {
		return err
	}
	defer f.Close()
	var super [1024]byte
	if _, err := f.ReadAt(super[:], 1024); err != nil {
		return err
	}
	size, err := f.Seek(0, 2) // of a block device: its capacity
	if err != nil {
		return err
	}
	blocks, want := ext4Blocks(super, size)
	if want <= blocks {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ext4IocResizeFS, uintptr(unsafe.Pointer(&want))); errno != 0 { //nolint:gosec // the ioctl takes a pointer
		return errno
	}
	return nil
}

// ext4Blocks reads a superblock: how many blocks the file system has, and how many its device holds.
func ext4Blocks(super [1024]byte, deviceSize int64) (have, room uint64) {
	le := binary.LittleEndian
	const offBlocksLo, offLogBlockSize, offBlocksHi = 0x4, 0x18, 0x150
	have = uint64(le.Uint32(super[offBlocksHi:]))<<32 | uint64(le.Uint32(super[offBlocksLo:]))
	return have, uint64(deviceSize) >> (10 + le.Uint32(super[offLogBlockSize:]))
}
