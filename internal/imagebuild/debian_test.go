package imagebuild

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
)

func TestResolve(t *testing.T) {
	for name, want := range map[string]string{
		"debian:12": "debian:12 bookworm", "debian:bookworm": "debian:12 bookworm",
		"debian:13": "debian:13 trixie", "debian:trixie": "debian:13 trixie",
	} {
		r, err := resolve(name)
		if got := r.name + " " + r.suite; err != nil || got != want {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "debian", "debian:", "debian:11", "debian:12 debian:bookworm", "ubuntu:24.04"} {
		_, err := resolve(name)
		f := fault.From(err)
		if f == nil || f.Code != fault.NotFound || !strings.Contains(f.Hint, "debian:12 and debian:13") {
			t.Errorf("%s: got %+v", name, f)
		}
	}
}

func TestBootstrapNamesAMirrorOnlyWhenThereIsOne(t *testing.T) {
	without := bootstrap("bookworm", "", "/tree")
	if d := cmp.Diff([]string{"bookworm", "/tree"}, without[len(without)-2:]); d != "" {
		t.Error(d)
	}
	with := bootstrap("bookworm", "http://mirror.invalid/debian", "/tree")
	if d := cmp.Diff(append(without, "http://mirror.invalid/debian"), with); d != "" {
		t.Error(d)
	}
}

func TestChatter(t *testing.T) {
	for line, want := range map[string]string{
		"I: installing essential packages...":       "installing essential packages",
		"I: automatically chosen format: directory": "",
		"Get:1 something":                           "",
	} {
		if got, ok := chatter(line); got != want || ok != (want != "") {
			t.Errorf("%q: got %q", line, got)
		}
	}
}

// plant writes files of a tree; a content of "-> x" makes a symbolic link to x.
func plant(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFurnishLeavesNothingOfOneMachine(t *testing.T) {
	tree := t.TempDir()
	outside := filepath.Join(t.TempDir(), "resolv.conf")
	plant(t, filepath.Dir(outside), map[string]string{"resolv.conf": "the host's"})
	plant(t, tree, map[string]string{
		"etc/ssh/ssh_host_rsa_key": "secret", "etc/ssh/ssh_host_rsa_key.pub": "public", "etc/machine-id": "uninitialized",
		"etc/resolv.conf": "-> " + outside, "etc/systemd/system/ssh.socket": "[Socket]", "etc/systemd/system/other.service": "[Unit]",
		"var/lib/dbus/machine-id": "-> /etc/machine-id", "boot/vmlinuz-6.1.0": "kernel", "boot/initrd.img-6.1.0": "initrd",
		"vmlinuz": "-> boot/vmlinuz-6.1.0", "var/cache/apt/archives/a.deb": "package", "lib/modules/6.1.0/modules.dep": "",
		"etc/dpkg/dpkg.cfg.d/99mmdebstrap": "path-exclude=/usr/share/man/*", "etc/apt/apt.conf.d/01autoremove": "",
	})
	for range 2 { // also over its own result
		if err := furnish(tree); err != nil {
			t.Fatal(err)
		}
	}
	for _, gone := range []string{
		"etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/machine-id", "var/lib/dbus/machine-id", "boot/vmlinuz-6.1.0",
		"boot/initrd.img-6.1.0", "vmlinuz", "var/cache/apt/archives/a.deb", "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
	} {
		if _, err := os.Lstat(filepath.Join(tree, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	for _, stays := range []string{"lib/modules/6.1.0/modules.dep", "etc/systemd/system/other.service", "etc/apt/apt.conf.d/01autoremove"} {
		if _, err := os.Lstat(filepath.Join(tree, stays)); err != nil {
			t.Error(err)
		}
	}
	for _, unit := range []string{"serial-getty@ttyS0.service", "apt-daily.timer", "systemd-networkd.service", "ssh.socket", "sshd-keygen.service", "fstrim.timer"} {
		if to, err := os.Readlink(filepath.Join(tree, "etc/systemd/system", unit)); to != "/dev/null" {
			t.Errorf("%s is not masked: %q, %v", unit, to, err)
		}
	}
	if st, err := os.Lstat(filepath.Join(tree, "etc/resolv.conf")); err != nil || !st.Mode().IsRegular() {
		t.Errorf("resolv.conf is no plain file: %v", err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "the host's" {
		t.Errorf("a file of the host was touched: %q, %v", b, err)
	}
	sshd, err := os.ReadFile(filepath.Join(tree, "etc/ssh/sshd_config.d/banger.conf"))
	if err != nil || !strings.Contains(string(sshd), "PermitRootLogin prohibit-password\n") {
		t.Errorf("sshd: %q, %v", sshd, err)
	}
}
