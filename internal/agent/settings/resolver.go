package settings

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	resolvConf = "etc/resolv.conf"
	// ResolvedDropIn configures systemd-resolved, in a guest where that answers its programs.
	ResolvedDropIn = "etc/systemd/resolved.conf.d/banger.conf"
)

// resolver has the guest's programs ask these servers. Where systemd-resolved answers them it is told, and its link
// stays; any other link becomes a file, as whatever it led to is made by a program that the guest may not have.
func resolver(root *os.Root, servers, search []string) error {
	if usesResolved(root) {
		text := "[Resolve]\nDNS=" + strings.Join(servers, " ") + "\n"
		if len(search) > 0 {
			text += "Domains=" + strings.Join(search, " ") + "\n"
		}
		return put(root, ResolvedDropIn, text, 0o644)
	}
	text := "nameserver " + strings.Join(servers, "\nnameserver ") + "\n"
	if len(search) > 0 {
		text = "search " + strings.Join(search, " ") + "\n" + text
	}
	if err := put(root, resolvConf, text, 0o644); err != nil {
		return err
	}
	// It no longer answers: should its user have it answer again, it is to find out anew.
	if err := root.Remove(ResolvedDropIn); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// usesResolved reports whether /etc/resolv.conf is a link of systemd-resolved, and that is started at boot.
func usesResolved(root *os.Root) bool {
	target, err := root.Readlink(resolvConf)
	if err != nil {
		return false
	}
	if !path.IsAbs(target) {
		target = path.Join("/etc", target)
	}
	if path.Dir(target) != "/run/systemd/resolve" && target != "/usr/lib/systemd/resolv.conf" {
		return false
	}
	return slices.ContainsFunc([]string{"sysinit", "multi-user"}, func(target string) bool {
		_, err := root.Lstat("etc/systemd/system/" + target + ".target.wants/systemd-resolved.service")
		return err == nil
	})
}
