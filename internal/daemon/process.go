package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/fault"
	"banger/internal/host/exec"
	"banger/internal/host/handover"
)

// socket is the listener that the API is served on.
type socket struct {
	*net.UnixListener
	inherited bool // from systemd or from the build that executed this one
	ours      bool // made by a bangerd, which unlinks it in the end; not by systemd
}

// handOver returns the listener for another build. The socket's file stays when this one closes.
func (s *socket) handOver() (*os.File, error) {
	s.SetUnlinkOnClose(false)
	return s.File()
}

// listen takes over an inherited listener, or makes the socket. A socket file that nobody listens on is
// a dead daemon's and is replaced; one that somebody answers on is left alone.
func listen(ctx context.Context, path, group string) (*socket, error) {
	if s, err := inherit(); s != nil || err != nil {
		return s, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // members of the group must reach the socket in it
		return nil, fault.System(err, "make runtime directory", filepath.Dir(path))
	}
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return nil, fault.New(fault.InUse, "another daemon serves on it").WithOp("listen on", path).
			WithHint("stop that one, or set another socket")
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := removeSocket(path); err != nil {
			return nil, err
		}
	}
	// Nobody may connect before the mode is right.
	old := syscall.Umask(0o177)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fault.System(err, "listen on", path)
	}
	s := &socket{UnixListener: l.(*net.UnixListener), ours: true}
	if g, err := user.LookupGroup(group); err == nil {
		gid, err := strconv.Atoi(g.Gid)
		if err == nil {
			err = errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)) //nolint:gosec // that is what the group is for
		}
		if err != nil {
			return nil, errors.Join(fault.System(err, "give to its group", path), s.Close())
		}
	}
	return s, nil
}

// removeSocket removes a dead socket, and nothing else: connecting to an ordinary file is refused too.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if err == nil && st.Mode().Type() != os.ModeSocket {
		return fault.New(fault.InUse, "there is a file that is no socket").WithOp("listen on", path).
			WithHint("move it away, or set another socket")
	}
	if err == nil {
		err = os.Remove(path)
	}
	return fault.System(err, "replace dead socket", path)
}

// handedDown names the descriptor of the listener that an older build left to the one it executed, and
// ownSocket says that a bangerd made it. Every build must go on to read them: the older one cannot know
// what a newer one would like better.
const (
	handedDown = "BANGER_LISTEN_FD"
	ownSocket  = "BANGER_LISTEN_OWN"
)

// inherit finds the listener of the build that executed this one, or of systemd. None is nil.
func inherit() (*socket, error) {
	var given []net.Listener
	var err error
	_, ours := os.LookupEnv(ownSocket)
	if text, ok := os.LookupEnv(handedDown); ok {
		given, err = left(text)
	} else {
		given, err = activation.Listeners()
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "the listener that was handed over cannot be used: %w", err).WithOp("listen", "").
			WithHint("start bangerd again")
	}
	for _, l := range given {
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(ours)
			return &socket{UnixListener: u, inherited: true, ours: ours}, nil
		}
	}
	return nil, nil //nolint:nilnil // nothing was inherited, which is no error
}

func left(descriptor string) ([]net.Listener, error) {
	if err := errors.Join(os.Unsetenv(handedDown), os.Unsetenv(ownSocket)); err != nil { // no child is to see them
		return nil, err
	}
	fd, err := strconv.Atoi(descriptor)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "listener")
	if f == nil {
		return nil, fmt.Errorf("%d is no descriptor", fd)
	}
	defer f.Close() // FileListener makes its own
	l, err := net.FileListener(f)
	return []net.Listener{l}, err
}

// acquire locks the state directory for this process.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.System(err, "lock state directory", path)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 20)) // only for the message
		_ = f.Close()
		return nil, fault.New(fault.InUse, "another daemon runs on it, process %s", strings.TrimSpace(string(holder))).
			WithOp("use state directory", filepath.Dir(path)).WithHint("stop that one, or set another state_dir")
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, fault.System(err, "lock state directory", path)
}

// errUpgrade ends serving because a newer build waits.
var errUpgrade = errors.New("a newer build is to be executed")

// upgradeDrain bounds how long operations may keep a newer build waiting.
const upgradeDrain = 10 * time.Minute

// Upgrade looks whether the executable on disk is newer than this process. If so it is executed in
// place once no operation runs: same pid, same socket, VMs running on.
func (d *Daemon) Upgrade(ctx context.Context) (api.Upgrade, error) {
	up := api.Upgrade{From: buildinfo.Current()}
	exe, err := os.Executable()
	if err != nil {
		return up, err
	}
	d.children.Add(1)
	res, err := exec.Runner{}.Run(ctx, exec.Command{Argv: []string{exe, "--build"}})
	if err == nil {
		err = json.Unmarshal(res.Stdout, &up.To)
	}
	if err != nil {
		return up, fault.New(fault.Incompatible, "the executable on disk does not say which build it is: %w", err).WithOp("upgrade daemon", exe).
			WithHint("install bangerd again, then restart the daemon")
	}
	if !buildinfo.Newer(up.To, up.From) {
		return up, nil
	}
	up.Done = true
	d.upgrading.Do(func() {
		d.log.Info("a newer build is on disk", "from", up.From, "to", up.To)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), upgradeDrain)
			defer cancel()
			if err := d.manager.Idle(ctx); err != nil {
				d.log.Warn("operations still run; they are called off for the newer build", "error", err)
			}
			close(d.upgrade)
		}()
	})
	return up, nil
}

// reexec executes the build on disk in this process. The listener goes along, so that no client is
// refused meanwhile: connections wait in its queue. So do the other sockets. It returns only when it fails.
func reexec(listener *os.File, ours bool, others *handover.Handover) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	// It keeps its number. Moving it to the third descriptor, where systemd's convention has it, would
	// close what is there: the runtime's own, which other threads still wait on.
	fd := listener.Fd()
	if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
		return fault.System(err, "hand the listener over to", exe)
	}
	env, err := others.Environment()
	if err != nil {
		return err
	}
	env = append(append(os.Environ(), env...), handedDown+"="+strconv.Itoa(int(fd)))
	if ours {
		env = append(env, ownSocket+"=1")
	}
	return fault.System(syscall.Exec(exe, os.Args, env), "execute", exe) //nolint:gosec // our own executable
}

// notify tells systemd, where it started us.
func notify(state string) {
	_, _ = systemd.SdNotify(false, state) // nobody may be listening
}

func buildString() string { return buildinfo.Current().String() }
