package link

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

var errNoTUN = errors.New("the host has no " + tunDevice)

// CheckTUN tells whether TAPs can be made: fault.Requirement when the kernel offers none, or not to us.
func (*Links) CheckTUN() error {
	f, err := openTUN()
	if err != nil {
		return explain("open", tunDevice, err)
	}
	return f.Close()
}

func openTUN() (*os.File, error) {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, errNoTUN
	}
	return f, err
}

// createTAP makes a TAP that outlives us, with the flags that Firecracker opens it with: the kernel
// refuses to open a device whose header differs.
func createTAP(name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("the name is not valid: %w", err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	f, err := openTUN()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	return nil
}
