package initrd

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
)

// mountDisks mounts the root disk at newRoot and the others inside it.
func (b *Boot) mountDisks(ctx context.Context, mounts []agentproto.Mount) error {
	if err := b.mount(ctx, agentproto.Mount{Device: rootDevice, FSType: "ext4", Grow: true}, newRoot); err != nil {
		return err
	}
	root, err := os.OpenRoot(newRoot)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, m := range mounts {
		// Through the root and a descriptor: the path may hold links of the guest's.
		name := strings.TrimPrefix(path.Clean("/"+m.Path), "/")
		if err := root.MkdirAll(name, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.Path, err)
		}
		dir, err := root.Open(name)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Path, err)
		}
		err = b.mount(ctx, m, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
		_ = dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// mount mounts a disk and lets its file system fill it. A file system that cannot grow serves as it
// is: what is on it matters more.
func (b *Boot) mount(ctx context.Context, m agentproto.Mount, dir string) error {
	if err := awaitFile(ctx, m.Device); err != nil {
		return err
	}
	data := ""
	if m.FSType == "ext4" {
		data = "errors=remount-ro" // a damaged file system is kept from further damage
	}
	if err := unix.Mount(m.Device, dir, m.FSType, 0, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.Device, orRoot(m.Path), err)
	}
	if m.Grow && m.FSType == "ext4" {
		if err := grow(m.Device, dir); err != nil {
			b.Log.Error("grow the file system", "device", m.Device, "error", err)
		}
	}
	return nil
}

func orRoot(p string) string {
	if p == "" {
		return "/"
	}
	return p
}

// ext4IocResizeFS is EXT4_IOC_RESIZE_FS of the kernel's fs/ext4/ext4.h: _IOW('f', 16, __u64).
const ext4IocResizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16

// grow enlarges the ext4 that is mounted at dir to its device.
func grow(device, dir string) error {
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
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), ext4IocResizeFS, uintptr(unsafe.Pointer(&want))); errno != 0 { //nolint:gosec // the ioctl takes a pointer
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
