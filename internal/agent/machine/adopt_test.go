package machine

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/agent"
	"banger/internal/agentproto"
)

// asListener has the test's own executable be a process that listens, and begins anew at a SIGHUP.
const asListener = "BANGER_TEST_LISTENER"

func TestMain(m *testing.M) {
	if how := os.Getenv(asListener); how != "" {
		listen(how)
		return
	}
	m.Run()
}

func listen(how string) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	_, _ = fmt.Fprintln(os.Stdout, err) // the test hears of it
	for range hup {
		l.Close()
		if how == "dies" {
			return
		}
		l, _ = net.Listen("tcp", "127.0.0.1:0") // the test sees that there is none
	}
}

// listener starts such a process, which lives until the test ends.
func listener(t *testing.T, how string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asListener+"="+how)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // as init does; how it ended is the test's business
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-ended
	})
	if err != nil || said != "<nil>\n" {
		t.Fatal(said, err)
	}
	return cmd.Process.Pid
}

func TestRestartListener(t *testing.T) {
	pid := listener(t, "restarts")
	had, err := listensOn(pid)
	if err != nil || len(had) != 1 {
		t.Fatalf("it listens on %q, %v", had, err)
	}
	if err := restartListener(t.Context(), pid); err != nil {
		t.Fatal(err)
	}
	if now, err := listensOn(pid); err != nil || len(now) != 1 || now[0] == had[0] {
		t.Errorf("it listens on %q, as before %q: %v", now, had, err)
	}
}

func TestAListenerThatDies(t *testing.T) {
	err := restartListener(t.Context(), listener(t, "dies"))
	if err == nil || !strings.HasPrefix(err.Error(), "await sshd's restart: ") {
		t.Errorf("got %v", err)
	}
}

// A process that does not listen, such as a session of sshd's, would end at a SIGHUP.
func TestWhoDoesNotListenIsLeftAlone(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := restartListener(t.Context(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it was ended: %v", err)
	}
}

func TestKeepsHostKeys(t *testing.T) {
	for dir, want := range map[string]bool{"usr/lib/openssh": true, "usr/libexec/openssh": true, "usr/lib/ssh": true, "usr/libexec": true, "usr/bin": false} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "sshd-session"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
		if got := keepsHostKeys(root); got != want {
			t.Errorf("%s: %v", dir, got)
		}
	}
}

func TestRunning(t *testing.T) {
	found := false
	for _, pid := range running(line("/proc/self/comm")) {
		found = found || pid == os.Getpid()
	}
	if !found {
		t.Error("this process was not found by its name")
	}
	if pids := running("no such name"); pids != nil {
		t.Errorf("found %v", pids)
	}
}

// TestReseed asks the kernel that runs the test, which takes it from root only.
func TestReseed(t *testing.T) {
	if err := new(Machine).Reseed([]byte(rand.Text() + rand.Text())); err != nil {
		t.Error(err)
	}
}

func TestPoolInfo(t *testing.T) {
	info := poolInfo([]byte("abcd"))
	if bits, size := binary.NativeEndian.Uint32(info), binary.NativeEndian.Uint32(info[4:]); bits != 32 || size != 4 || string(info[8:]) != "abcd" {
		t.Errorf("got %x", info)
	}
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	begun := agent.Identity{Token: "begun", Services: []agentproto.Service{{Name: "ssh", Port: 22}}}
	if got, err := kept(root, begun); err != nil || cmp.Diff(begun, got) != "" {
		t.Errorf("before anything was kept: %+v, %v", got, err)
	}
	for _, token := range []string{"one", "two"} {
		if err := keep(root, agent.Identity{Token: token}); err != nil {
			t.Fatal(err)
		}
		if got, err := kept(root, begun); err != nil || got.Token != token || got.Services != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	for name, want := range map[string]os.FileMode{"run/banger-agent": 0o700, "run/banger-agent/identity": 0o600} {
		if fi, err := root.Stat(name); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if err := root.WriteFile(identityFile, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := kept(root, begun); err == nil || got.Token != "begun" {
		t.Errorf("of junk: %+v, %v", got, err)
	}
}
