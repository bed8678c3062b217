package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Groups keeps each hypervisor of one instance in a cgroup of its own. A process is in its cgroup
// from its first instruction on, so what a crash of ours leaves behind is always found there.
// Where systemd manages the host, the process then moves on into a transient scope, so that systemd
// knows it as something apart from the daemon's own service.
type Groups struct {
	mount   string // where the cgroup2 file system is
	tag     vm.Tag
	systemd bool
}

// OpenGroups finds the host's cgroup2 file system. Without one it fails with fault.Requirement.
func OpenGroups(tag vm.Tag) (*Groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mount := cgroup2Mount(mounts)
	if mount == "" {
		return nil, fault.New(fault.Requirement, "no cgroup2 file system is mounted").WithOp("open cgroups", "").
			WithHint("mount it: `mount -t cgroup2 none /sys/fs/cgroup`")
	}
	_, err = os.Stat("/run/systemd/system")
	return &Groups{mount: mount, tag: tag, systemd: err == nil}, nil
}

// cgroup2Mount finds the mount point in a mountinfo file: field 5, of the line whose file system
// type, the first field after " - ", is cgroup2.
func cgroup2Mount(mountinfo []byte) string {
	for line := range bytes.Lines(mountinfo) {
		before, after, ok := strings.Cut(string(line), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) >= 5 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4]
		}
	}
	return ""
}

func (g *Groups) parent() string      { return filepath.Join(g.mount, g.tag.Bridge(0)) }
func (g *Groups) dir(id vm.ID) string { return filepath.Join(g.parent(), string(id)) }
func (g *Groups) scope(id vm.ID) string {
	return g.scopePrefix() + string(id) + scopeSuffix
}
func (g *Groups) scopePrefix() string      { return "banger-" + string(g.tag) + "-" }
func (g *Groups) scopeDir(id vm.ID) string { return filepath.Join(g.mount, slice, g.scope(id)) }

// slice is the systemd slice that holds the scopes.
const (
	slice       = "system.slice"
	scopeSuffix = ".scope"
)

// Make creates the VM's cgroup, or finds it, and returns its directory for
// SysProcAttr.CgroupFD. The caller closes it.
func (g *Groups) Make(id vm.ID) (*os.File, error) {
	if err := os.MkdirAll(g.dir(id), 0o755); err != nil { //nolint:gosec // the kernel's own mode for cgroups
		return nil, fault.New(fault.Requirement, "%w", err).WithOp("make cgroup", g.dir(id)).
			WithHint("run the daemon as root, and inside a container with a writable cgroup2 file system")
	}
	return os.Open(g.dir(id))
}

// Adopt moves the VM's process into its scope where systemd manages the host.
func (g *Groups) Adopt(ctx context.Context, id vm.ID, pid int) error {
	if !g.systemd {
		return nil
	}
	return startScope(ctx, g.scope(id), "banger VM "+string(id), pid)
}

// Remove ends whatever runs in the VM's cgroup or scope and removes it. Gone is success.
// It needs Linux 5.14.
func (g *Groups) Remove(ctx context.Context, id vm.ID) error {
	// The scope first: a thread of KVM's, which stays in the cgroup that its VM's process began in, ends with that process.
	for _, dir := range []string{g.scopeDir(id), g.dir(id)} {
		if err := removeGroup(ctx, dir); err != nil {
			return fault.New(fault.Internal, "%w", err).WithOp("remove cgroup", dir).
				WithHint("see what still runs in it: `cat %s/cgroup.procs`", dir)
		}
	}
	// The instance's own cgroup goes with the last VM.
	if err := unix.Rmdir(g.parent()); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove cgroup %s: %w", g.parent(), err)
	}
	return nil
}

func removeGroup(ctx context.Context, dir string) error {
	pids, err := members(dir)
	if err != nil {
		return err
	}
	var ended []vm.Process
	for _, pid := range pids {
		if p, err := Identify(pid); err == nil {
			ended = append(ended, p)
		}
	}
	if len(pids) > 0 {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, killed)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, p := range ended {
			reap(p)
		}
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is still busy: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// List returns the VMs that have a cgroup or a scope of this instance.
func (g *Groups) List() ([]vm.ID, error) {
	var all []vm.ID
	add := func(id vm.ID) {
		if id.Valid() && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	for _, dir := range []string{g.parent(), filepath.Join(g.mount, slice)} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.System(err, "list cgroups in", dir)
		}
		for _, e := range entries {
			if dir == g.parent() {
				add(vm.ID(e.Name()))
			} else if id, ok := strings.CutPrefix(e.Name(), g.scopePrefix()); ok {
				add(vm.ID(strings.TrimSuffix(id, scopeSuffix)))
			}
		}
	}
	return all, nil
}

// Members returns the pids of what runs in the VM's cgroup or scope.
func (g *Groups) Members(id vm.ID) ([]int, error) {
	var all []int
	for _, dir := range []string{g.dir(id), g.scopeDir(id)} {
		pids, err := members(dir)
		if err != nil {
			return nil, err
		}
		all = append(all, pids...)
	}
	return all, nil
}

func members(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("read members of %s: %w", dir, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
