package exec_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"banger/internal/fault"
	"banger/internal/host/exec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sh(script string) exec.Command { return exec.Command{Argv: []string{"sh", "-c", script}} }

func TestRunGivesBothStreamsAndTheLines(t *testing.T) {
	c := sh(`read x; printf "$x\nprogress 1\rprogress 2\n\033[31mred\n$GREETING $PWD"; echo oops >&2`)
	c.Stdin = strings.NewReader("in\n")
	c.Env = []string{"GREETING=hello"}
	c.Dir = "/"
	lines := map[string]bool{}
	c.OnLine = func(l string) { lines[l] = true }
	r, err := exec.Runner{}.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(r.Stdout), "in\nprogress 1\rprogress 2\n\033[31mred\nhello /"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got := string(r.Stderr); got != "oops\n" {
		t.Errorf("stderr %q", got)
	}
	want := map[string]bool{"in": true, "progress 1": true, "progress 2": true, "red": true, "hello /": true, "oops": true}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
}

func TestOutputAndLinesAreBounded(t *testing.T) {
	c := sh(`head -c 3000000 /dev/zero | tr '\0' x; echo; echo end`)
	longest := 0
	c.OnLine = func(l string) { longest = max(longest, len(l)) }
	r, err := exec.Runner{}.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Stdout) != 1<<20 || !strings.HasSuffix(string(r.Stdout), "x\nend\n") {
		t.Errorf("kept %d bytes ending in %q", len(r.Stdout), r.Stdout[len(r.Stdout)-8:])
	}
	if longest != 4<<10 {
		t.Errorf("longest line %d", longest)
	}
}

func TestFailureIsOneLineWithWhatTheProgramSaid(t *testing.T) {
	_, err := exec.Runner{}.Run(t.Context(), sh(`echo first >&2; printf 'no \033space\n\n' >&2; exit 3`))
	e, ok := errors.AsType[*exec.Error](err)
	if !ok {
		t.Fatalf("got %T %v", err, err)
	}
	if e.Status != 3 || e.Argv[0] != "sh" || !strings.Contains(e.Stderr, "first") {
		t.Errorf("got %+v", e)
	}
	if got, want := err.Error(), "sh: exit status 3: no space"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestContextEndsTheWholeGroup(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	go func() {
		pid, _ := bufio.NewReader(r).ReadString('\n')
		cancel(errors.New("changed my mind"))
		_, _ = io.Copy(io.Discard, r)
		_ = pid
	}()
	defer func() { _ = r.Close() }()
	pids := make(chan int, 1)
	c := sh(`sleep 1000 & echo $!; wait`)
	c.OnLine = func(l string) {
		if pid, err := strconv.Atoi(l); err == nil {
			pids <- pid
		}
		_, _ = io.WriteString(w, l+"\n")
	}
	began := time.Now()
	_, err := exec.Runner{}.Run(ctx, c)
	_ = w.Close()
	if err == nil || err.Error() != "sh: changed my mind" {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	pid := <-pids
	for deadline := time.Now().Add(5 * time.Second); !gone(pid); {
		if time.Now().After(deadline) {
			t.Fatalf("the child's child %d lives on", pid)
		}
	}
}

// gone reports whether a process has ended; a zombie that nobody reaped has.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestMissingProgramNamesItsPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := exec.Runner{}.Run(t.Context(), exec.Command{Argv: []string{"qemu-system-x86_64-not"}})
	if !fault.Is(err, fault.Requirement) || err.Error() != `run "qemu-system-x86_64-not": the program is not installed` {
		t.Errorf("got %v", err)
	}
	if got := exec.Package("resize2fs"); got != "e2fsprogs" {
		t.Errorf("got %q", got)
	}
	_, err = exec.LookPath("/nowhere/firecracker")
	if !fault.Is(err, fault.Requirement) || err.Error() != `run "/nowhere/firecracker": the program cannot be executed: stat /nowhere/firecracker: no such file or directory` {
		t.Errorf("got %v", err)
	}
}

func TestLookPathFindsAdministratorsPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	path, err := exec.LookPath("mke2fs")
	if err != nil || !strings.HasSuffix(path, "/mke2fs") {
		t.Errorf("got %q, %v", path, err)
	}
}
