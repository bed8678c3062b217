package initrd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
)

// ServicesEnv is the environment variable by which the resident agent learns what Ready waits for:
// a JSON array of agentproto.Service.
const ServicesEnv = "BANGER_SERVICES"

// TokenEnv is the environment variable by which the resident agent gets the token of its Hello. Only
// root can read a process's environment.
const TokenEnv = "BANGER_TOKEN"

// agentCgroup keeps the resident agent apart from the units that an init stops one by one.
const agentCgroup = "/sys/fs/cgroup/banger-agent"

// searchPath is where the resident agent finds the guest's programs.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// inits are tried in turn when the host names none. What the distribution calls init comes first: a
// root may hold the files of several.
func inits() [][]string {
	return [][]string{
		{"/sbin/init"},
		{"/usr/sbin/init"},
		{"/lib/systemd/systemd"},
		{"/usr/lib/systemd/systemd"},
		{"/init"},
		{"/bin/init"},
		{"/sbin/runit-init"},
		{"/usr/bin/runit-init"},
		{"/sbin/openrc-init"},
		{"/bin/busybox", "init"},
		{"/usr/bin/busybox", "init"},
	}
}

// handOver moves into the new root, leaves the resident agent behind and becomes init.
func (b *Boot) handOver(cfg agentproto.GuestConfig) error {
	if err := switchRoot(); err != nil {
		return err
	}
	argv, err := findInit(cfg.Init)
	if err != nil {
		return err
	}
	if err := b.leaveAgent(cfg.Services); err != nil {
		return fmt.Errorf("start the resident agent: %w", err)
	}
	b.done(agentproto.StageInit)
	// The kernel's own words to init come last, as if it had started init itself.
	argv = append(argv, os.Args[1:]...)
	err = syscall.Exec(argv[0], argv, os.Environ()) //nolint:gosec // the guest's own init, as the host or the distribution names it
	return fmt.Errorf("execute %s: %w", argv[0], err)
}

// switchRoot makes the new root the root, and frees the memory of the initrd.
func switchRoot() error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		target := newRoot + dir
		if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // as everywhere
			return err
		}
		if err := unix.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(newRoot+"/run", 0o755); err != nil { //nolint:gosec // as everywhere
		return err
	}
	if err := unix.Mount("tmpfs", newRoot+"/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=20%"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := emptyInitrd(); err != nil {
		return fmt.Errorf("free the initrd: %w", err)
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// emptyInitrd removes the initrd's files. Our own executable lives on in the processes that run it.
func emptyInitrd() error {
	root, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if "/"+e.Name() != newRoot {
			err = errors.Join(err, root.RemoveAll(e.Name()))
		}
	}
	return err
}

// findInit returns the argv of the init to execute, once the new root is the root.
func findInit(wanted []string) ([]string, error) {
	candidates := inits()
	if len(wanted) > 0 {
		candidates = [][]string{wanted}
	}
	var looked []string
	for _, argv := range candidates {
		fi, err := os.Stat(argv[0])
		if err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return argv, nil
		}
		looked = append(looked, argv[0])
	}
	return nil, fmt.Errorf("the root file system has no init; looked for %s", strings.Join(looked, ", "))
}

// leaveAgent starts the supervisor of the resident agent, in a session and, where the kernel has
// them, a cgroup of its own.
func (b *Boot) leaveAgent(services []agentproto.Service) error {
	list, err := json.Marshal(services)
	if err != nil {
		return err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	// The kernel's log is there before and after any log daemon of the guest.
	log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		log = null
	} else {
		defer log.Close()
	}
	attr := &os.ProcAttr{
		Dir:   "/",
		Env:   []string{searchPath, ServicesEnv + "=" + string(list), TokenEnv + "=" + b.token},
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if group, err := makeCgroup(); err == nil {
		defer group.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	p, err := os.StartProcess("/proc/self/exe", b.Resident, attr)
	if err != nil {
		return err
	}
	return p.Release()
}

// makeCgroup mounts the cgroup hierarchy, as systemd would, and makes our group in it.
func makeCgroup() (*os.File, error) {
	dir := filepath.Dir(agentCgroup)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if unix.Mount("cgroup2", dir, "cgroup2", flags, "nsdelegate,memory_recursiveprot") != nil {
		if err := unix.Mount("cgroup2", dir, "cgroup2", flags, ""); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(agentCgroup, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // as every cgroup
		return nil, err
	}
	return os.Open(agentCgroup)
}
