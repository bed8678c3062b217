package daemon

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/vm"
)

// hostTimezone is the time zone of the host whose file systems are at root, empty when it does not say:
// where /etc/localtime leads, else what Debian keeps in a file.
func hostTimezone(root string) string {
	if target, err := os.Readlink(filepath.Join(root, "etc/localtime")); err == nil {
		if _, name, ok := strings.Cut(target, "/zoneinfo/"); ok && vm.CheckTimezone(name) == nil {
			return name
		}
	}
	f, err := os.Open(filepath.Clean(filepath.Join(root, "etc/timezone")))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 100))
	if name := strings.TrimSpace(string(text)); err == nil && vm.CheckTimezone(name) == nil {
		return name
	}
	return ""
}
