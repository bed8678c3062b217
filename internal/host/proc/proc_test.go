package proc_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a shell script as a child and returns its identity and its first line of output.
func start(t *testing.T, script string, attr *os.ProcAttr) (p vm.Process, line string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	attr.Files = []*os.File{nil, w, os.Stderr}
	child, err := os.StartProcess("/bin/sh", []string{"sh", "-c", script}, attr)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	pid := child.Pid
	if err := child.Release(); err != nil {
		t.Fatal(err)
	}
	line, err = bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("child said nothing: %v", err)
	}
	p, err = proc.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proc.Kill(context.Background(), p, time.Second); err != nil {
			t.Error(err)
		}
	})
	return p, strings.TrimSpace(line)
}

const forever = "echo up; exec sleep 1000"

func TestIdentity(t *testing.T) {
	p, _ := start(t, forever, &os.ProcAttr{})
	if !proc.Alive(p) {
		t.Error("a running process is not alive")
	}
	for what, change := range map[string]func(*vm.Process){
		"another process with its pid": func(p *vm.Process) { p.StartTime++ },
		"a process before a reboot":    func(p *vm.Process) { p.BootID = "00000000-0000-0000-0000-000000000000" },
		"no process":                   func(p *vm.Process) { p.PID = 0 },
	} {
		other := p
		change(&other)
		if proc.Alive(other) {
			t.Errorf("%s is alive", what)
		}
		if err := proc.Signal(other, unix.SIGKILL); !errors.Is(err, proc.ErrGone) {
			t.Errorf("signal to %s: %v", what, err)
		}
		if err := proc.Wait(t.Context(), other); err != nil {
			t.Errorf("wait for %s: %v", what, err)
		}
		if _, err := proc.RSS(other); !errors.Is(err, proc.ErrGone) {
			t.Errorf("RSS of %s: %v", what, err)
		}
	}
	if !proc.Alive(p) {
		t.Error("a signal to another hit it")
	}
}

func TestWaitForAChildReapsIt(t *testing.T) {
	p, _ := start(t, forever, &os.ProcAttr{})
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := proc.Wait(short, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- proc.Wait(t.Context(), p) }()
	if err := proc.Signal(p, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := unix.Kill(p.PID, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("it stays a zombie: %v", err)
	}
}

func TestZombieIsGone(t *testing.T) {
	p, _ := start(t, forever, &os.ProcAttr{})
	if err := unix.Kill(p.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, p.PID, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if proc.Alive(p) {
		t.Error("a zombie is alive")
	}
	if err := proc.Wait(t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestWaitForAStranger(t *testing.T) {
	_, line := start(t, `sh -c 'echo $$; exec sleep 1000' & wait`, &os.ProcAttr{})
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	p, err := proc.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- proc.Wait(t.Context(), p) }()
	if err := proc.Kill(t.Context(), p, 5*time.Second); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestKillUsesForceOnTheDeaf(t *testing.T) {
	p, _ := start(t, `trap '' TERM; echo up; exec sleep 1000`, &os.ProcAttr{})
	if err := proc.Kill(t.Context(), p, 10*time.Millisecond); err != nil {
		t.Error(err)
	}
	if proc.Alive(p) {
		t.Error("it lives")
	}
}

func TestCPUTimeAndRSS(t *testing.T) {
	p, _ := start(t, `i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo worked; exec sleep 1000`, &os.ProcAttr{})
	used, err := proc.CPUTime(p, "")
	if err != nil || used < time.Millisecond {
		t.Errorf("used %v, %v", used, err)
	}
	none, err := proc.CPUTime(p, "fc_vcpu")
	if err != nil || none != 0 {
		t.Errorf("threads of other names used %v, %v", none, err)
	}
	if rss, err := proc.RSS(p); err != nil || rss < 64<<10 {
		t.Errorf("RSS %d, %v", rss, err)
	}
}

func TestParseStat(t *testing.T) {
	tail := " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"
	for line, want := range map[string]uint64{
		"7 (sh) S" + tail:                           4711,
		"7 (a b) c) (d) R" + tail:                   4711,
		"7 () 1 2 3 4 5 6 7 8 9 10 11 12) Z" + tail: 4711,
	} {
		if _, got, err := proc.ParseStat([]byte(line)); err != nil || got != want {
			t.Errorf("%q: %d, %v", line, got, err)
		}
	}
	for _, line := range []string{"", "7 sh S", "7 (sh)", "7 (sh) S 1 2 3", "7 (sh) S" + strings.ReplaceAll(tail, "4711", "x")} {
		if _, _, err := proc.ParseStat([]byte(line)); err == nil {
			t.Errorf("%q: accepted", line)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"))
	f.Fuzz(func(_ *testing.T, line []byte) { _, _, _ = proc.ParseStat(line) })
}
