package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/image"
	"banger/internal/snapshot"
)

// freeze tells what a snapshot of a machine with this image freezes of this host.
func (d *Daemon) freeze(ctx context.Context, img image.Manifest) (f snapshot.Frozen, err error) {
	root, err := os.Stat(filepath.Join(d.layout.Image(img.ID), image.FileRoot))
	if err != nil {
		return f, err
	}
	f.ImageRoot = fmt.Sprintf("%d bytes of %d", root.Size(), root.ModTime().UnixNano())
	if f.Agent, err = d.kernels.AgentDigest(); err != nil {
		return f, err
	}
	version, err := d.driver.Version(ctx)
	if err != nil {
		return f, err
	}
	f.Hypervisor = "Firecracker " + version.String()
	if f.CPU, err = proc.CPU(); err != nil {
		return f, err
	}
	var u unix.Utsname
	err = unix.Uname(&u)
	f.HostKernel = unix.ByteSliceToString(u.Release[:])
	return f, err
}
