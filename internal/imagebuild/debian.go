package imagebuild

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/fault"
)

// release is a Debian release that can be pulled.
type release struct {
	name  string // canonical image name
	suite string
	alias []string
}

func releases() []release {
	return []release{
		{name: "debian:12", suite: "bookworm", alias: []string{"debian:bookworm"}},
		{name: "debian:13", suite: "trixie", alias: []string{"debian:trixie"}},
	}
}

// resolve finds the release that a name means: its number or its code name.
func resolve(name string) (release, error) {
	var known []string
	for _, r := range releases() {
		if r.name == name || strings.Contains(" "+strings.Join(r.alias, " ")+" ", " "+name+" ") {
			return r, nil
		}
		known = append(known, r.name)
	}
	return release{}, fault.New(fault.NotFound, "no such image can be pulled").WithOp("pull image", name).
		WithHint("there are %s; bring any other root with `banger image import`", strings.Join(known, " and "))
}

// packages make a guest that people can work in at once and that still downloads quickly.
func packages() []string {
	return []string{
		"systemd", "systemd-sysv", "dbus", "libpam-systemd", "udev", "kmod", "linux-image-cloud-amd64",
		"openssh-server", "openssh-sftp-server", "ca-certificates", "iproute2", "iputils-ping", "netbase",
		"procps", "psmisc", "git", "curl", "rsync", "less", "nano", "tmux", "sudo", "xz-utils", "zstd", "tzdata",
	}
}

// bootstrap is mmdebstrap's command line. A mirror of "" leaves the choice to mmdebstrap.
func bootstrap(suite, mirror, dir string) []string {
	argv := []string{
		"mmdebstrap", "--variant=minbase", "--mode=root", "--include=" + strings.Join(packages(), ","),
		"--customize-hook=" + rootSession,
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		suite, dir,
	}
	if mirror != "" {
		argv = append(argv, mirror)
	}
	return argv
}

// rootSession keeps root's logins from being logind's: it would start an instance of systemd for root at the first one, and
// that is most of what a first login costs. Everybody else's are. The rule has to stand right before pam_systemd's, whose
// profile has the priority 0.
const rootSession = `cat > "$1/usr/share/pam-configs/banger-root" <<'END'
Name: Logins of root that logind does not manage
Default: yes
Priority: 1
Session-Type: Additional
Session-Interactive-Only: yes
Session:
	[success=1 default=ignore]	pam_succeed_if.so quiet uid eq 0
END
chroot "$1" pam-auth-update --package`

// masked units would fight the agent for the NIC, wait for a console that nobody watches, or wake an
// idle guest.
func masked() []string {
	return []string{
		"serial-getty@ttyS0.service", "getty@tty1.service", "systemd-networkd.service", "systemd-networkd.socket",
		"systemd-networkd-wait-online.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
		"e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-timesyncd.service", "ssh.socket",
		"systemd-boot-random-seed.service", "systemd-firstboot.service", "sshd-keygen.service",
	}
}

// furnish makes a bootstrapped tree the root of any number of guests: nothing in it is one machine's
// own, and what makes a guest one machine comes with its guest config.
func furnish(tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	var errs []error
	write := func(name, content string) { errs = append(errs, root.WriteFile(name, []byte(content), 0o644)) }
	remove := func(pattern string) {
		matches, err := filepath.Glob(filepath.Join(tree, pattern))
		errs = append(errs, err)
		for _, m := range matches {
			rel, err := filepath.Rel(tree, m)
			errs = append(errs, err, root.RemoveAll(rel))
		}
	}
	for _, unit := range masked() {
		link := "etc/systemd/system/" + unit
		errs = append(errs, root.RemoveAll(link), root.Symlink("/dev/null", link))
	}
	write("etc/hostname", "localhost\n")
	write("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	write("etc/fstab", "# The agent mounts the disks before init runs.\n")
	errs = append(errs, root.RemoveAll("etc/resolv.conf"))
	write("etc/resolv.conf", "")
	errs = append(errs, root.MkdirAll("etc/ssh/sshd_config.d", 0o755), root.MkdirAll("etc/systemd/journald.conf.d", 0o755))
	write("etc/ssh/sshd_config.d/banger.conf", "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\nHostKey /etc/ssh/ssh_host_ed25519_key\n")
	write("etc/systemd/journald.conf.d/banger.conf", "[Journal]\nSystemMaxUse=64M\n")
	// The root file system must not be checked or remounted by units that look for it in fstab.
	remove("etc/ssh/ssh_host_*")
	remove("etc/machine-id")
	remove("var/lib/dbus/machine-id")
	remove("boot/vmlinuz-*")
	remove("boot/initrd.img-*")
	remove("boot/System.map-*")
	remove("vmlinuz*")
	remove("initrd.img*")
	remove("var/cache/apt/archives/*.deb")
	remove("var/lib/apt/lists/*_Packages")
	remove("var/log/*.log")
	remove("root/.ssh")
	remove("etc/update-motd.d") // each login would run what is in it, to say which kernel this is
	// What the bootstrap left out is no rule for what a user installs: that comes with its manual
	// pages and all that it recommends.
	remove("etc/apt/apt.conf.d/99mmdebstrap")
	remove("etc/dpkg/dpkg.cfg.d/99mmdebstrap")
	return errors.Join(errs...)
}

// seedFiles are what a fresh /root holds.
func seedFiles(dir string) error {
	files := map[string]string{
		".profile": "[ -n \"$BASH_VERSION\" ] && [ -f ~/.bashrc ] && . ~/.bashrc\nmesg n 2>/dev/null || true\n",
		".bashrc":  "case $- in *i*) ;; *) return ;; esac\nPS1='\\u@\\h:\\w\\$ '\nalias ls='ls --color=auto' ll='ls -l'\nHISTSIZE=10000\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil { //nolint:gosec // a guest's dot file
			return err
		}
	}
	return errors.Join(os.Mkdir(filepath.Join(dir, ".ssh"), 0o700), os.Chmod(dir, 0o700)) //nolint:gosec // a directory needs x
}

// chatter turns mmdebstrap's chatter into something short.
func chatter(line string) (string, bool) {
	text, ok := strings.CutPrefix(line, "I: ")
	if !ok || strings.HasPrefix(text, "automatically") {
		return "", false
	}
	return strings.TrimSuffix(text, "..."), true
}
