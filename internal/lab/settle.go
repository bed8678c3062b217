package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// guestPath finds the repository's binaries first; Firecracker is in the lab's own /usr/local/bin.
const guestPath = mountSrc + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// settle makes the host what its users expect: a name, loopback, KVM, a network, a scratch disk. All at
// once, as each waits for the emulated processors in its own way.
func settle() error {
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return do(ctx, "ip", "link", "set", "lo", "up") })
	g.Go(func() error { return do(ctx, "modprobe", "kvm_amd") })
	g.Go(devices)
	g.Go(func() error { return network(ctx) })
	g.Go(func() error { return scratch(ctx) })
	return g.Wait()
}

// devices makes the nodes whose first use loads a module, such as /dev/net/tun and /dev/loop-control:
// what kmod and udev do on other hosts.
func devices() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	list := read("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.devname")
	for line := range strings.Lines(list) {
		var module, node string
		var kind byte
		var major, minor uint32
		if n, _ := fmt.Sscanf(line, "%s %s %c%d:%d", &module, &node, &kind, &major, &minor); n != 5 {
			continue // a comment
		}
		mode := uint32(unix.S_IFCHR)
		if kind == 'b' {
			mode = unix.S_IFBLK
		}
		path := filepath.Join("/dev", node)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(path, mode|0o600, int(unix.Mkdev(major, minor))); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %s: %w", path, err)
		}
	}
	return nil
}

// network configures the NIC where the lab host has one: QEMU's user network, inside the emulator.
func network(ctx context.Context) error {
	nics, err := filepath.Glob("/sys/bus/virtio/devices/*/modalias")
	if err != nil {
		return err
	}
	for _, file := range nics {
		if !strings.HasPrefix(read(file), "virtio:d00000001v") { // 1 is a network device
			continue
		}
		if err := do(ctx, "modprobe", "virtio_net"); err != nil {
			return err
		}
		// By what it is, not by name: below systemd, udev renames it.
		named, err := filepath.Glob(filepath.Join(filepath.Dir(file), "net", "*"))
		if err != nil || len(named) != 1 {
			return errors.Join(err, fmt.Errorf("the NIC has %d names, want one", len(named)))
		}
		nic := filepath.Base(named[0])
		return errors.Join(
			do(ctx, "ip", "addr", "add", "10.0.2.15/24", "dev", nic),
			do(ctx, "ip", "link", "set", nic, "up"),
			do(ctx, "ip", "route", "add", "default", "via", "10.0.2.2"),
			os.WriteFile("/etc/resolv.conf", []byte("nameserver 10.0.2.3\n"), 0o644),
		)
	}
	return nil
}

// scratch mounts the scratch disk where there is one, and formats it where it is blank.
func scratch(ctx context.Context) error {
	const disk = "/dev/vdb"
	if _, err := os.Stat(disk); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := do(ctx, "modprobe", "xfs"); err != nil {
		return err
	}
	if mount(disk, mountScratch, "xfs", 0, "") == nil {
		return nil
	}
	if err := do(ctx, "mkfs.xfs", "-q", "-m", "reflink=1", disk); err != nil {
		return err
	}
	return mount(disk, mountScratch, "xfs", 0, "")
}

// do runs a program of the lab host that is to succeed.
func do(ctx context.Context, argv ...string) error {
	if out, err := command(ctx, argv, []string{"PATH=" + guestPath}).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}
