package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/buildinfo"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/host/link"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

func ask(t *testing.T, conn net.Conn) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func connect(t *testing.T, path string) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestNobodyIsRefusedDuringAnUpgrade connects before, and again after, a daemon executes itself: both
// are answered by the new build, which is the same process.
func TestNobodyIsRefusedDuringAnUpgrade(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "run", "s")
	c := start(t, socket, nil)
	if c.says != "listening false\n" {
		t.Fatalf("it says %q", c.says)
	}
	waiting := connect(t, socket)
	c.execute()
	want := fmt.Sprintf("pid %d inherited true left []", c.cmd.Process.Pid)
	if got := ask(t, waiting); got != want {
		t.Errorf("who connected before is told %q, want %q", got, want)
	}
	if got := ask(t, connect(t, socket)); got != want {
		t.Errorf("who connects after is told %q, want %q", got, want)
	}
	c.stop()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("its socket is left behind: %v", err)
	}
}

// TestSocketActivation hands a listener over as systemd does, and on to the next build.
func TestSocketActivation(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := start(t, socket, []string{"LISTEN_FDS=1", childActivated + "=1"}, f)
	if c.says != "listening true\n" {
		t.Fatalf("it says %q", c.says)
	}
	waiting := connect(t, socket)
	c.execute()
	if got, want := ask(t, waiting), fmt.Sprintf("pid %d inherited true left []", c.cmd.Process.Pid); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.stop()
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("systemd's socket: %v", err)
	}
}

func TestAListenerThatCannotBeUsed(t *testing.T) {
	for _, handed := range []string{"", "x", "-1", "9999"} {
		t.Setenv(handedDown, handed)
		s, err := listen(t.Context(), filepath.Join(t.TempDir(), "s"), "")
		if s != nil || !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "the listener that was handed over cannot be used") {
			t.Errorf("%q: %v", handed, err)
		}
		if _, still := os.LookupEnv(handedDown); still {
			t.Errorf("%q is left to children", handed)
		}
	}
}

func TestListenMakesTheSocket(t *testing.T) {
	me, err := user.LookupGroupId(strconv.Itoa(os.Getgid()))
	if err != nil {
		t.Fatal(err)
	}
	for group, mode := range map[string]os.FileMode{me.Name: 0o660, "no such group": 0o600} {
		path := filepath.Join(t.TempDir(), "run", "s")
		s, err := listen(t.Context(), path, group)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode() != os.ModeSocket|mode || int(st.Sys().(*syscall.Stat_t).Gid) != os.Getgid() {
			t.Errorf("for group %s: %v, %v", group, st.Mode(), err)
		}
		_ = s.Close()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("it is left behind: %v", err)
		}
	}
}

func TestListenReplacesOnlyADeadSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	first, err := listen(t.Context(), path, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = listen(t.Context(), path, "")
	want := fmt.Sprintf("listen on %q: another daemon serves on it", path)
	if !fault.Is(err, fault.InUse) || err.Error() != want {
		t.Errorf("a living one: %v", err)
	}
	first.SetUnlinkOnClose(false) // as SIGKILL leaves it
	_ = first.Close()
	second, err := listen(t.Context(), path, "")
	if err != nil {
		t.Fatalf("a dead one: %v", err)
	}
	_ = second.Close()

	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if _, err := listen(t.Context(), path, ""); !fault.Is(err, fault.InUse) || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if text, err := os.ReadFile(link); err != nil || string(text) != "x" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestOneDaemonOfOneStateDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = acquire(path)
	want := fmt.Sprintf("use state directory %q: another daemon runs on it, process %d", filepath.Dir(path), os.Getpid())
	if !fault.Is(err, fault.InUse) || err.Error() != want || fault.From(err).Hint == "" {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := acquire(path)
	if err != nil {
		t.Fatalf("after it has gone: %v", err)
	}
	_ = second.Close()
}

// blocked is a catalog whose pulls last until they are released.
type blocked struct {
	lifecycle.Images
	release chan struct{}
}

func (b blocked) Pull(context.Context, string, lifecycle.StageReport) (image.Manifest, error) {
	<-b.release
	return image.Manifest{}, nil
}

// forgetful is a store for operations that nobody asks for again.
type forgetful struct{ lifecycle.Store }

func (forgetful) SaveOperation(context.Context, op.Operation, ...event.Event) error { return nil }

func upgradable(t *testing.T, images lifecycle.Images) *Daemon {
	t.Helper()
	name, value, _ := strings.Cut(quick, "=")
	t.Setenv(name, value)
	d := &Daemon{log: slog.New(slog.DiscardHandler), upgrade: make(chan struct{}), tracker: op.NewTracker(), links: link.New("ab12", 0)}
	d.manager = lifecycle.New(lifecycle.Config{Store: forgetful{}, Images: images, Capacity: capacity{dir: t.TempDir()}, Tracker: d.tracker, Log: d.log})
	t.Cleanup(d.manager.Close)
	return d
}

func TestUpgradeExecutesOnlyWhatIsNewer(t *testing.T) {
	mine := buildinfo.Current()
	for name, c := range map[string]struct {
		stamp int64
		done  bool
	}{"newer": {mine.Stamp + 1, true}, "the same": {mine.Stamp, false}, "older": {mine.Stamp - 1, false}} {
		t.Run(name, func(t *testing.T) {
			d := upgradable(t, nil)
			t.Setenv(childBuild, fmt.Sprintf(`{"version":"other","stamp":%d,"later":1}`, c.stamp))
			for range 2 { // who asks twice gets the same answer, and one upgrade
				up, err := d.Upgrade(t.Context())
				if err != nil || up.Done != c.done || up.From != mine || up.To.Version != "other" {
					t.Errorf("%+v, %v", up, err)
				}
			}
			if c.done {
				<-d.upgrade
				return
			}
			select {
			case <-d.upgrade:
				t.Error("it is executed")
			default:
			}
		})
	}
}

func TestUpgradeOfABrokenInstallation(t *testing.T) {
	d := upgradable(t, nil)
	for _, answer := range []string{"", "banger 1.0", `{"stamp":"x"}`} {
		t.Setenv(childBuild, answer)
		up, err := d.Upgrade(t.Context())
		if up.Done || !fault.Is(err, fault.Incompatible) || fault.From(err).Hint == "" {
			t.Errorf("%q: %+v, %v", answer, up, err)
		}
	}
}

func TestUpgradeWaitsForOperations(t *testing.T) {
	images := blocked{release: make(chan struct{})}
	d := upgradable(t, images)
	if _, err := d.manager.PullImage(vm.Caller{}, "debian:12"); err != nil {
		t.Fatal(err)
	}
	t.Setenv(childBuild, string(must(json.Marshal(buildinfo.Info{Stamp: buildinfo.Current().Stamp + 1}))))
	if up, err := d.Upgrade(t.Context()); err != nil || !up.Done {
		t.Fatalf("%+v, %v", up, err)
	}
	select {
	case <-d.upgrade:
		t.Error("it is executed while an operation runs")
	default:
	}
	close(images.release)
	<-d.upgrade
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}
