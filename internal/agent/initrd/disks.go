package initrd

import (
	"context"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"banger/internal/agent/ext4"
	"banger/internal/agent/machine"
	"banger/internal/agentproto"
)

// mountDisks mounts the root disk at newRoot and the others inside it.
func (b *Boot) mountDisks(ctx context.Context, mounts []agentproto.Mount) error {
	rootDisk := agentproto.Mount{Device: machine.RootDevice, Path: "/", FSType: "ext4", Grow: true}
	if err := b.measure(ctx, append([]agentproto.Mount{rootDisk}, mounts...)...); err != nil {
		return err
	}
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
			err = ext4.Fill(m.Device, dir)
		} else {
			err = ext4.KeepSparse(dir)
		}
		_ = dir.Close()
	}
	if err != nil {
		b.Log.Error("settle the file system", "device", m.Device, "error", err)
	}
}
