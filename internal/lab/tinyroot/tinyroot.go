// Package tinyroot makes the smallest root file system a guest can have: a static busybox and nothing
// else. It boots in a fraction of a distribution's time, for tests whose subject is not the distribution.
package tinyroot

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"io"
	"os"
	"slices"
	"time"

	"banger/internal/fault"
)

// applets are the programs that scripts may expect, as links to busybox. A list of our own, not what
// some busybox offers, keeps the tree the same everywhere.
func applets() []string {
	return []string{
		"[", "arping", "ash", "awk", "base64", "basename", "cat", "chmod", "chown", "chroot", "cmp", "cp", "cut",
		"date", "dd", "df", "diff", "dirname", "dmesg", "du", "echo", "env", "expr", "false", "find",
		"free", "grep", "gunzip", "gzip", "head", "hexdump", "hostname", "id", "ifconfig", "ip", "kill",
		"killall", "ln", "ls", "md5sum", "mkdir", "mknod", "mktemp", "mount", "mv", "nc", "nslookup",
		"nproc", "od", "pidof", "ping", "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir", "route",
		"sed", "seq", "setsid", "sh", "sha256sum", "sleep", "sort", "stat", "stty", "sync", "tail",
		"tar", "tee", "test", "timeout", "top", "touch", "tr", "true", "tty", "umount", "uname", "uniq",
		"uptime", "vi", "wc", "wget", "which", "whoami", "xargs", "yes",
	}
}

// initApplets belong to busybox's own init.
func initApplets() []string { return []string{"halt", "init", "poweroff", "reboot"} }

// ShellPort is where guests made for tests serve a shell, to one connection after another. They have no
// SSH server.
const ShellPort = 514

// Serve is the command that serves it with busybox.
const Serve = "/bin/busybox nc -ll -p 514 -e /bin/sh"

const inittab = `::sysinit:/etc/rc
::respawn:` + Serve + `
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/umount -a -r
`

// What the initrd has mounted stays as it is.
const rc = `#!/bin/sh
mounted() { grep -q " $1 " /proc/mounts 2>/dev/null; }
for m in proc:/proc sysfs:/sys devtmpfs:/dev; do
  mounted "${m#*:}" || mount -t "${m%:*}" "${m%:*}" "${m#*:}"
done
mkdir -p /dev/pts /dev/shm
mounted /dev/pts || mount -t devpts devpts /dev/pts
mounted /run || mount -t tmpfs tmpfs /run
[ -e /etc/hostname ] && hostname -F /etc/hostname
exit 0
`

const osRelease = `ID=tiny
NAME="Tiny"
PRETTY_NAME="Tiny (busybox)"
`

// Write writes the tree as a tar archive: the same bytes for the same busybox. A busybox that is not a
// static ELF program is fault.Requirement, as nothing in the tree could load it.
func Write(w io.Writer, busybox []byte) error {
	if err := checkStatic(busybox); err != nil {
		return err
	}
	a := archive{tar.NewWriter(w)}
	for _, dir := range []struct {
		name string
		mode int64
	}{
		{"bin", 0o755},
		{"dev", 0o755},
		{"etc", 0o755},
		{"mnt", 0o755},
		{"proc", 0o555},
		{"root", 0o700},
		{"run", 0o755},
		{"sbin", 0o755},
		{"sys", 0o555},
		{"tmp", 0o1777},
		{"usr", 0o755},
		{"usr/bin", 0o755},
		{"var", 0o755},
		{"var/log", 0o755},
	} {
		if err := a.add(tar.Header{Typeflag: tar.TypeDir, Name: dir.name + "/", Mode: dir.mode}, ""); err != nil {
			return err
		}
	}
	if err := a.file("bin/busybox", 0o755, string(busybox)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(slices.Values(applets())) {
		if err := a.link("bin/"+name, "busybox"); err != nil {
			return err
		}
	}
	for _, name := range initApplets() {
		if err := a.link("sbin/"+name, "../bin/busybox"); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name, content string
		mode          int64
	}{
		{"etc/group", "root:x:0:\n", 0o644},
		{"etc/inittab", inittab, 0o644},
		{"etc/os-release", osRelease, 0o644},
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644},
		{"etc/rc", rc, 0o755},
	} {
		if err := a.file(f.name, f.mode, f.content); err != nil {
			return err
		}
	}
	return a.w.Close()
}

// Busybox reads the host's busybox.
func Busybox(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Requirement, "%w", err).WithOp("read busybox", path).WithHint("apt-get install busybox-static")
	}
	return b, nil
}

func checkStatic(program []byte) error {
	refuse := func(why string) error {
		return fault.New(fault.Requirement, "%s", why).WithOp("use busybox", "").WithHint("apt-get install busybox-static")
	}
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return refuse("it is not an ELF program")
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return refuse("it is dynamically linked, and the tree holds no libraries")
		}
	}
	return nil
}

// archive writes entries that are root's and have no time of their own.
type archive struct{ w *tar.Writer }

func (a archive) file(name string, mode int64, content string) error {
	return a.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content)
}

func (a archive) link(name, target string) error {
	return a.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "")
}

func (a archive) add(h tar.Header, content string) error {
	h.Uname, h.Gname, h.ModTime, h.Format = "root", "root", time.Unix(0, 0), tar.FormatUSTAR
	if err := a.w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := io.WriteString(a.w, content)
	return err
}
