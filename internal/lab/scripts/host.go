package scripts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/lab"
	"banger/internal/lab/hoststate"
)

// passing lists the programs that may come and go in a script: the daemon, which the CLI starts, and
// udev's workers, which end by themselves.
func passing() []string { return []string{"bangerd", "(udev-worker)"} }

// LabHost is the lab host, where this program runs.
type LabHost struct{}

// State reads what exists now.
func (LabHost) State(ctx context.Context, below string) (hoststate.State, error) {
	rules, err := exec.CommandContext(ctx, "nft", "--stateless", "list", "ruleset").Output()
	if err != nil {
		return nil, fmt.Errorf("list firewall rules: %w", err)
	}
	return hoststate.Read(os.DirFS("/"), rules, hoststate.Options{Below: below, Ignore: passing()})
}

// Begin remembers what exists. The function it returns ends every process that is new, whatever it is,
// and removes what came: it refuses to be used on a host that is more than a throw-away one.
func (h LabHost) Begin(ctx context.Context) (end func(context.Context) ([]string, error), err error) {
	if !lab.Inside() {
		return nil, fault.New(fault.WrongState, "this is not the lab, and each script ends with the end of every process that it did not find").
			WithOp("run scripts", "").WithHint("use `banger-lab e2e`")
	}
	before, err := h.State(ctx, "")
	if err != nil {
		return nil, err
	}
	pids, err := running()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]string, error) {
		var left []string
		var unread error
		late := until(ctx, waitSettle, func() bool {
			var after hoststate.State
			after, unread = h.State(ctx, "")
			left = hoststate.Diff(before, after)
			return unread != nil || len(left) == 0
		})
		if unread != nil || late != nil && !errors.Is(late, errTooLong) {
			return nil, errors.Join(unread, late)
		}
		if err := killAllBut(ctx, pids); err != nil {
			return nil, err
		}
		for _, line := range slices.Backward(left) { // mounts and cgroups go before those they are in
			if err := remove(ctx, line); err != nil {
				return nil, err
			}
		}
		return left, nil
	}, nil
}

func killAllBut(ctx context.Context, pids []int) error {
	now, err := running()
	if err != nil {
		return err
	}
	for _, pid := range now {
		if slices.Contains(pids, pid) {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		if err := until(ctx, waitEnd, func() bool { return !alive(pid) }); err != nil {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
	}
	return nil
}

// remove undoes one line of a difference, where it is a thing that came.
func remove(ctx context.Context, line string) error {
	kind, name, _ := strings.Cut(strings.TrimPrefix(line, "+ "), " ")
	if !strings.HasPrefix(line, "+ ") {
		return nil
	}
	switch kind {
	case "link":
		device, _, _ := strings.Cut(name, " ")
		if _, err := os.Stat("/sys/class/net/" + device); errors.Is(err, fs.ErrNotExist) {
			return nil // a TAP goes with the process that holds it
		}
		return program(ctx, "ip", "link", "delete", device)
	case "nft":
		if table, ok := strings.CutSuffix(name, " {"); ok && strings.HasPrefix(table, "table ") {
			return program(ctx, "nft", "delete "+table)
		}
	case "dm":
		return program(ctx, "dmsetup", "remove", "--retry", name)
	case "mount":
		return unix.Unmount(name, unix.MNT_DETACH)
	case "cgroup":
		var busy error // until the last thread of the process in it has gone, which takes longer than its leader
		late := until(ctx, waitEnd, func() bool {
			busy = unix.Rmdir(name)
			return !errors.Is(busy, unix.EBUSY)
		})
		if err := errors.Join(late, busy); err != nil && !errors.Is(busy, unix.ENOENT) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	case "loop":
		return program(ctx, "losetup", "--detach-all")
	}
	return nil
}

// running lists the pids of user space.
func running() ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(dir + "/cmdline")
		pid, notPID := strconv.Atoi(path.Base(dir))
		if err == nil && notPID == nil && len(cmdline) > 0 {
			out = append(out, pid)
		}
	}
	return out, nil
}

// alive reports whether pid runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(rest, []byte("Z")) && !bytes.HasPrefix(rest, []byte("X"))
}

// program runs a program that is to succeed quietly.
func program(ctx context.Context, argv ...string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// maxLog bounds a kept log.
const maxLog = 4 << 20

// eachLog visits the logs in a tree, of each its last bytes.
func eachLog(tree *os.Root, visit func(name string, content []byte) error) error {
	return fs.WalkDir(tree.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path.Ext(name) != ".log" {
			return err
		}
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-maxLog), maxLog))
		if err != nil {
			return err
		}
		return visit(name, content)
	})
}
