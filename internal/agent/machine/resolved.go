package machine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/agent/settings"
)

// restartsResolved runs write, and where that has changed what systemd-resolved is told ends it: it reads that only as it
// starts, and its unit has it started again at once.
func restartsResolved(root *os.Root, write func() error) error {
	before, _ := root.ReadFile(settings.ResolvedDropIn)
	if err := write(); err != nil {
		return err
	}
	if now, _ := root.ReadFile(settings.ResolvedDropIn); string(now) == string(before) {
		return nil
	}
	var errs []error
	for _, pid := range running("systemd-resolve") { // as much as the kernel keeps of its name
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("restart systemd-resolved: %w", err))
		}
	}
	return errors.Join(errs...)
}
