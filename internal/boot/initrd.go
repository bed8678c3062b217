package boot

import (
	"errors"
	"io"

	"banger/internal/boot/cpio"
	"banger/internal/fault"
)

// MaxInitrd bounds an initrd: every boot copies it into the guest's memory.
const MaxInitrd = 12 << 20

// Modules are what a guest needs from its kernel before its root file system is there: the transport
// by which Firecracker offers devices, and one driver for each device of the fixed set. A kernel may
// have any of them built in.
func Modules() []string {
	return []string{
		"virtio_mmio", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport", "virtio_rng", "virtio_balloon", "ext4",
	}
}

// Initrd writes an initrd: the agent as /init, the directories it mounts on, and the archive of
// modules as it is. Nothing is compressed: the file comes from the page cache at every boot but the
// first, and copying a few megabytes costs less than unpacking them.
func Initrd(w io.Writer, agent io.Reader, agentSize int64, modules io.Reader) error {
	c := cpio.NewWriter(w)
	err := errors.Join(
		c.Dir("dev"), c.Dir("proc"), c.Dir("sys"), c.Dir("run"), c.Dir("sysroot"),
		c.CharDevice("dev/console", 0o600, 5, 1), // where the kernel connects /init's standard streams
		c.File("init", 0o755, agentSize, agent),
		c.Close(),
	)
	if err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(modules, MaxInitrd))
	if err == nil && n+agentSize > MaxInitrd {
		err = fault.New(fault.Exhausted, "agent and modules together exceed %d bytes", MaxInitrd).WithOp("make initrd", "").
			WithHint("use a kernel with smaller modules, or with them built in")
	}
	return err
}
