package supervise_test

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banger/internal/agent/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world runs a supervisor over shell scripts that say a line when they start and when they are told
// that the guest goes down.
type world struct {
	lines    chan string
	pids     chan int
	term     chan os.Signal
	finished chan struct{}
}

func start(t *testing.T, script string, awaitsUs bool) *world {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	world := &world{lines: make(chan string, 100), pids: make(chan int, 100), term: make(chan os.Signal), finished: make(chan struct{})}
	s := &supervise.Supervisor{
		Start: func() (*os.Process, error) {
			p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", script}, &os.ProcAttr{Files: []*os.File{null, w, w}})
			if err == nil {
				world.pids <- p.Pid
			}
			return p, err
		},
		Term:     world.term,
		AwaitsUs: func() bool { return awaitsUs },
		Log:      slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(world.finished)
		s.Run(ctx)
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(r); sc.Scan(); {
			world.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-world.finished
		for len(world.pids) > 0 {
			_ = syscall.Kill(<-world.pids, syscall.SIGKILL) // most have ended
		}
		w.Close()
		<-read
		r.Close()
		null.Close()
	})
	return world
}

func (w *world) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-w.lines:
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no %q", want)
	}
}

const server = `trap 'echo told' USR1; echo up; while :; do read x < /dev/null; sleep 0.02; done`

func TestADeadServerIsStartedAgain(t *testing.T) {
	w := start(t, server, false)
	for range 3 {
		w.expect(t, "up")
		if err := syscall.Kill(<-w.pids, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	w.expect(t, "up")
}

func TestPausesGrow(t *testing.T) {
	w := start(t, "echo up", false)
	begun := time.Now()
	for range 4 {
		w.expect(t, "up")
	}
	if took := time.Since(begun); took < 700*time.Millisecond { // 100 + 200 + 400
		t.Errorf("four starts took %v", took)
	}
}

func TestTermIsPassedOn(t *testing.T) {
	w := start(t, server, false)
	w.expect(t, "up")
	for range 2 {
		w.term <- syscall.SIGTERM
		w.expect(t, "told")
	}
}

func TestTermEndsTheSupervisorThatInitAwaits(t *testing.T) {
	w := start(t, server, true)
	w.expect(t, "up")
	w.term <- syscall.SIGTERM
	w.expect(t, "told")
	<-w.finished
	// The server has outlived it.
	if err := syscall.Kill(<-w.pids, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
