package proc

import "golang.org/x/sys/unix"

// Memory is how much this host has, in bytes, without what the kernel keeps for itself from the start on.
func Memory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return int64(info.Totalram) * int64(info.Unit), nil
}
