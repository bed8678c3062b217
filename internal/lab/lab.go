// Package lab is banger's own test host: a Debian VM under QEMU's software emulation in which KVM,
// device-mapper, vsock, TUN and bridges are the real ones, so that real Firecracker runs real guests
// on machines that have no usable KVM. QEMU emulates AMD SVM; that is the whole trick.
//
// The same package holds both ends: the caller's, which builds the host once and runs it many times,
// and the lab host's own, which is this program as the initrd's /init.
package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"banger/internal/boot"
	"banger/internal/boot/cpio"
	"banger/internal/boot/kmod"
	"banger/internal/fault"
	hostexec "banger/internal/host/exec"
)

// Lab is a built lab host in the cache, and the repository that it shows at /src.
type Lab struct {
	Cache  string // directory of everything that is kept between runs
	Source string // repository
	Log    io.Writer
}

// New returns the lab of a repository, with its cache below the user's cache directory or
// BANGER_LAB_CACHE.
func New(source string, log io.Writer) (*Lab, error) {
	cache := os.Getenv("BANGER_LAB_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		cache = filepath.Join(dir, "banger", "lab")
	}
	source, err := filepath.Abs(source)
	if err != nil {
		return nil, err
	}
	return &Lab{Cache: cache, Source: source, Log: log}, os.MkdirAll(cache, 0o700)
}

// What the lab host is made of. A change of any of it makes another host.
const (
	suite    = "bookworm"
	rootSize = "3G"
	recipe   = "6" // raise when the steps below change
)

func packages() []string {
	return []string{
		"systemd", "systemd-sysv", "dbus", "libpam-systemd", "linux-image-amd64", "kmod", "udev",
		"iproute2", "nftables", "procps", "util-linux", "e2fsprogs", "xfsprogs", "dmsetup",
		"openssh-client", "busybox-static", "git", "ca-certificates", "strace",
		// What others do to a host's network, and what people use to look at it.
		"iptables", "ufw", "firewalld", "systemd-resolved", "libnss-resolve", "network-manager", "dnsmasq-base",
		"bind9-dnsutils", "conntrack", "iputils-ping", "rsync",
	}
}

// Requirements maps the programs that building and running the lab needs to their Debian packages.
func Requirements() map[string]string {
	return map[string]string{
		"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs",
		"busybox": "busybox-static", "pip3": "python3-pip", "tar": "tar",
	}
}

// CheckRequirements names every program that is missing, and how to get them, in one fault.Requirement.
func CheckRequirements() error {
	var programs, packages []string
	for program, pkg := range Requirements() {
		if _, err := hostexec.LookPath(program); err != nil {
			programs, packages = append(programs, program), append(packages, pkg)
		}
	}
	if len(programs) == 0 {
		return nil
	}
	slices.Sort(programs)
	slices.Sort(packages)
	return fault.New(fault.Requirement, "this machine lacks %s", strings.Join(programs, ", ")).WithOp("use the lab", "").
		WithHint("apt-get install --no-install-recommends %s", strings.Join(packages, " "))
}

func (l *Lab) key() string {
	h := sha256.Sum256([]byte(strings.Join(append(packages(), suite, rootSize, recipe, firecrackerWheel), "\n")))
	return hex.EncodeToString(h[:6])
}

func (l *Lab) dir() string { return filepath.Join(l.Cache, "host-"+l.key()) }

// Kernel is the lab host's kernel.
func (l *Lab) Kernel() string { return filepath.Join(l.dir(), "vmlinux") }

// Root is its root file system, a raw ext4 image that runs never write.
func (l *Lab) Root() string { return filepath.Join(l.dir(), "root.ext4") }

func (l *Lab) modules() string { return filepath.Join(l.dir(), "modules.cpio") }

// Build makes the lab host where the cache has none of this recipe. It is safe to call at any time:
// one builder works, others wait for it, and what a killed one left is never taken for whole.
func (l *Lab) Build(ctx context.Context) error {
	return l.Once(ctx, l.dir(), func(tmp string) error {
		if err := CheckRequirements(); err != nil {
			return err
		}
		l.Say("building the lab host (%s), once: about two minutes", suite)
		fc, err := l.Firecracker(ctx)
		if err != nil {
			return err
		}
		tree := filepath.Join(tmp, "tree")
		err = l.exec(ctx, nil, "mmdebstrap", "--variant=minbase", "--include="+strings.Join(packages(), ","),
			"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
			suite, tree)
		if err != nil {
			return err
		}
		if err := l.furnish(tree, fc, tmp); err != nil {
			return err
		}
		l.Say("laying out the lab host's root")
		err = l.exec(ctx, nil, "mke2fs", "-q", "-t", "ext4", "-L", "lab", "-O", "^has_journal", "-m", "0", "-d", tree, filepath.Join(tmp, "root.ext4"), rootSize)
		return errors.Join(err, os.RemoveAll(tree))
	})
}

// furnish puts Firecracker into the tree, takes kernel and modules out of it and quietens what would
// slow a throw-away host down.
func (l *Lab) furnish(tree, fc, tmp string) error {
	for _, name := range []string{"firecracker", "jailer"} {
		if err := copyFile(filepath.Join(fc, name), filepath.Join(tree, "usr/local/bin", name), 0o755); err != nil {
			return err
		}
	}
	versions, err := os.ReadDir(filepath.Join(tree, "lib/modules"))
	if err != nil {
		return err
	}
	if len(versions) != 1 {
		return fmt.Errorf("the tree has %d kernels, want one", len(versions))
	}
	version := versions[0].Name()
	// Unpacked: QEMU enters an ELF kernel directly, and emulating its decompressor takes 3 s of each boot.
	packed, err := os.ReadFile(filepath.Join(tree, "boot", "vmlinuz-"+version))
	if err != nil {
		return err
	}
	kernel, err := boot.Vmlinux(packed)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "vmlinux"), kernel, 0o600); err != nil {
		return err
	}
	mods, err := kmod.Open(os.DirFS(filepath.Join(tree, "lib/modules", version)))
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(tmp, "modules.cpio"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := kmod.Archive(f, mods, modules()...); err != nil {
		return err
	}
	unused, err := filepath.Glob(filepath.Join(tree, "boot", "*"))
	if err != nil {
		return err
	}
	for _, file := range unused {
		if err := os.RemoveAll(file); err != nil {
			return err
		}
	}
	for _, unit := range []string{
		"getty@.service", "serial-getty@.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer", "systemd-timesyncd.service",
		// Scripts start these themselves, having taken the link away.
		"ufw.service", "firewalld.service", "NetworkManager.service", "NetworkManager-wait-online.service", "NetworkManager-dispatcher.service", "systemd-resolved.service",
	} {
		link := filepath.Join(tree, "etc/systemd/system", unit)
		if err := os.Symlink("/dev/null", link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := os.Remove(filepath.Join(tree, "etc/resolv.conf")); err != nil && !errors.Is(err, os.ErrNotExist) { // systemd-resolved's link
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(tree, "etc/hostname"), []byte("lab\n"), 0o644),
		os.WriteFile(filepath.Join(tree, "etc/hosts"), []byte("127.0.0.1 localhost lab\n"), 0o644),
		os.WriteFile(filepath.Join(tree, "etc/machine-id"), []byte(strings.Repeat("1ab0", 8)+"\n"), 0o644),
	)
}

// writeInitrd joins this program, as /init, with the host's modules.
func (l *Lab) writeInitrd(path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	init, err := os.Open(self)
	if err != nil {
		return err
	}
	defer init.Close()
	st, err := init.Stat()
	if err != nil {
		return err
	}
	mods, err := os.Open(l.modules())
	if err != nil {
		return err
	}
	defer mods.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	c := cpio.NewWriter(out)
	if err := errors.Join(c.Dir("proc"), c.Dir("sys"), c.Dir("sysroot"), c.CharDevice("dev/console", 0o600, 5, 1),
		c.File("init", 0o755, st.Size(), init), c.Close()); err != nil {
		return err
	}
	_, err = io.Copy(out, mods)
	return err
}

// Once runs build in a temporary directory beside dir and renames it to dir, unless dir is there.
func (l *Lab) Once(ctx context.Context, dir string, build func(tmp string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return l.Alone(ctx, dir, func() error {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		tmp := dir + ".part"
		if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o700)); err != nil {
			return err
		}
		if err := build(tmp); err != nil {
			return errors.Join(err, os.RemoveAll(tmp))
		}
		return os.Rename(tmp, dir)
	})
}

// Alone runs work while no other process, and no other call, works on dir.
func (l *Lab) Alone(ctx context.Context, dir string, work func() error) error {
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // which releases it
	if err := flock(ctx, lock); err != nil {
		return err
	}
	return work()
}

func flock(ctx context.Context, f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
			pause()
		}
	}
}

// Say tells what goes on.
func (l *Lab) Say(format string, args ...any) {
	_, _ = fmt.Fprintf(l.Log, "lab: "+format+"\n", args...)
}

// exec runs a program of the plain machine and shows the end of what it said when it fails.
func (l *Lab) exec(ctx context.Context, env []string, argv ...string) error {
	var said tail
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = &said, &said
	if err := c.Run(); err != nil {
		return fault.New(fault.Internal, "%w", err).WithOp("run", strings.Join(argv, " ")).WithDetail(said.String())
	}
	return nil
}

func copyFile(src, dst string, perm os.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
