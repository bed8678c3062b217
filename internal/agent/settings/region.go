package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// memory is where it is kept what was written that the user may change.
const memory = "var/lib/banger-agent/"

// maxRemembered bounds what is read of it, in bytes.
const maxRemembered = 256

// errNothing is returned by a setting that finds nothing in the guest to be written to.
var errNothing = errors.New("the guest has no such thing")

// once applies a setting that the user may change in the guest. It is applied when it differs from what
// was applied before, and then only where that is what is still there: write gets it, empty at first.
func once(root *os.Root, name, value string, write func(root *os.Root, value, before string) error) error {
	before, err := read(root, memory+name, maxRemembered)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before = strings.TrimSuffix(before, "\n")
	if before == value {
		return nil
	}
	switch err := write(root, value, before); {
	case errors.Is(err, errNothing):
		return nil
	case err != nil:
		return err
	}
	return put(root, memory+name, value+"\n", 0o644)
}

const zoneinfo = "usr/share/zoneinfo/"

// timezone makes a zone of the guest's own database its local time. Without one it could only be named.
func timezone(root *os.Root, zone, before string) error {
	if _, err := root.Stat(zoneinfo); errors.Is(err, fs.ErrNotExist) {
		return errNothing
	}
	file := path.Join(zoneinfo, zone)
	if !strings.HasPrefix(file, zoneinfo) {
		return fmt.Errorf("timezone %s: it is not below /%s", zone, zoneinfo)
	}
	if fi, err := root.Stat(file); err != nil || !fi.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("timezone %s is not in the guest's /%s", zone, zoneinfo))
	}
	now, _ := root.Readlink("etc/localtime") // what is no link is not what we wrote either
	if before != "" && !strings.HasSuffix(now, "/"+path.Join(zoneinfo, before)) {
		return nil // the user's
	}
	if err := mkdir(root, "etc", 0o755); err != nil {
		return err
	}
	if err := link(root, "../"+file, "etc/localtime"); err != nil {
		return err
	}
	return put(root, "etc/timezone", zone+"\n", 0o644)
}

// locale is kept where systemd reads it, and where Debian's PAM does, which may be the same file.
func locale(root *os.Root, name, before string) error {
	err := errNothing
	for _, place := range []struct{ readers, file string }{
		{"usr/lib/systemd", "etc/locale.conf"},
		{"etc/default", "etc/default/locale"},
	} {
		if fi, err := root.Stat(place.readers); err != nil || !fi.IsDir() {
			continue
		}
		if errors.Is(err, errNothing) {
			err = nil
		}
		if fi, err := root.Lstat(place.file); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			if target, err := root.Readlink(place.file); err == nil && path.Base(target) == "locale.conf" {
				continue
			}
		}
		if before != "" {
			if now, err := read(root, place.file, maxEdited); err != nil || now != "LANG="+before+"\n" {
				continue // the user's
			}
		}
		err = errors.Join(err, put(root, place.file, "LANG="+name+"\n", 0o644))
	}
	return err
}
