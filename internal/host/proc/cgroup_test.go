package proc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/host/proc"
	"banger/internal/vm"
)

func TestGroupHoldsAndEndsItsProcesses(t *testing.T) {
	tag := vm.Tag(fmt.Sprintf("%04x", os.Getpid()&0xffff))
	groups, err := proc.OpenGroups(tag)
	if err != nil {
		t.Fatal(err)
	}
	id := vm.NewID()
	for range 2 { // making what exists is success
		dir, err := groups.Make(id)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
	}
	dir, err := groups.Make(id)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	attr := func() *os.ProcAttr {
		return &os.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}}
	}
	deaf, _ := start(t, `trap '' TERM; echo up; exec sleep 1000`, attr())
	second, _ := start(t, forever, attr())

	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", deaf.PID))
	if want := "0::/banger-" + string(tag) + "/" + string(id); err != nil || !strings.Contains(string(cgroup), want) {
		t.Errorf("it is in %q, not %q (%v)", cgroup, want, err)
	}
	pids, err := groups.Members(id)
	slices.Sort(pids)
	if d := cmp.Diff(slices.Sorted(slices.Values([]int{deaf.PID, second.PID})), pids); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	for range 2 { // removing what is gone is success
		if err := groups.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if proc.Alive(deaf) || proc.Alive(second) {
		t.Error("a member lives on")
	}
	pids, err = groups.Members(id)
	if err != nil || len(pids) != 0 {
		t.Errorf("left: %v %v", pids, err)
	}
}

// KVM has a thread in the cgroup that a VM's process began in, which cannot be ended, and which ends with the process,
// wherever that is. Here another cgroup in it stands for the thread.
func TestWhatBeganInTheGroupIsEndedInTheScope(t *testing.T) {
	tag := vm.Tag(fmt.Sprintf("%04x", os.Getpid()&0xffff))
	groups, err := proc.OpenGroups(tag)
	if err != nil {
		t.Fatal(err)
	}
	id := vm.NewID()
	dir, err := groups.Make(id)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	thread := filepath.Join(dir.Name(), "thread")
	scope := groups.ScopeDir(id)
	if err := errors.Join(os.Mkdir(thread, 0o755), os.MkdirAll(scope, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(filepath.Dir(scope)) }) // where the host has no systemd, and so no such slice
	in, err := os.Open(scope)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	process, _ := start(t, forever, &os.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(in.Fd())}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var ended sync.WaitGroup
	ended.Go(func() {
		for proc.Alive(process) && ctx.Err() == nil {
			runtime.Gosched()
		}
		if err := os.Remove(thread); err != nil {
			t.Error(err)
		}
	})
	if err := groups.Remove(ctx, id); err != nil {
		t.Error(err)
	}
	ended.Wait()
}

func TestCgroup2Mount(t *testing.T) {
	for info, want := range map[string]string{
		"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n": "/sys/fs/cgroup",
		"29 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n31 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
			"30 29 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n": "/sys/fs/cgroup/unified",
		"29 23 0:25 / / rw - ext4 /dev/vda rw\n": "",
		"cgroup2 - cgroup2 \n":                   "",
		"":                                       "",
	} {
		if got := proc.Cgroup2Mount([]byte(info)); got != want {
			t.Errorf("%q: %q", info, got)
		}
	}
}
