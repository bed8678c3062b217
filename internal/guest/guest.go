// Package guest is the host's end of a VM's vsock device: it receives what the guest's agent pushes
// and sends it requests.
//
// The guest is hostile. Whatever it says is bounded in size, rate and time, checked against the
// protocol and freed of control characters before anyone else sees it.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/vm"
)

// Event is what an agent pushed; exactly one field is set.
type Event struct {
	Hello    *agentproto.Hello
	Progress *agentproto.Progress
	Ready    *agentproto.Ready
	Failed   *agentproto.Failed
	Farewell *agentproto.Farewell
}

// Guest is the agent of one VM.
type Guest struct {
	dir      *os.File // the hypervisor's working directory
	listener *net.UnixListener
	config   func() agentproto.GuestConfig
	token    string // by which the resident agent is known
	events   func(Event)
	log      *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex
	current net.Conn // the newest control connection that said Hello
	booted  bool     // the guest config has been given out

	deliver sync.Mutex // events are delivered one at a time

	words      allowance // of the guest to cause events
	complaints allowance // of ours to log what is wrong with its connections
}

// Open listens for the agent of the VM whose hypervisor works in dir. It must be called before the
// guest boots, or after a restart of the daemon.
//
// config is asked for at the Hello of the initrd's agent, and given out once: it holds secrets, and any
// process of the guest can dial the host. With it goes a token, which the resident agent must show. A
// nil config says that this VM has booted already, with the token that is in dir.
//
// events are delivered one at a time, from the moment Open is called until Close returns; events
// must not call Close.
func Open(dir string, config func() agentproto.GuestConfig, events func(Event), log *slog.Logger) (*Guest, error) {
	if config != nil {
		return open(dir, makeToken, config, events, log)
	}
	return open(dir, func(d *os.File) (string, error) {
		token, err := readToken(d)
		if err != nil { // a VM that runs is taken back all the same
			log.Error("read the agent's token", "dir", dir, "error", err)
		}
		return token, nil
	}, nil, events, log)
}

// OpenRestored is Open for a guest that is about to be restored from a snapshot. It has booted already, with a token that
// is not this VM's: its agent is known once Adopt has told it the new one.
func OpenRestored(dir string, events func(Event), log *slog.Logger) (*Guest, error) {
	return open(dir, makeToken, nil, events, log)
}

func open(dir string, token func(*os.File) (string, error), config func() agentproto.GuestConfig, events func(Event), log *slog.Logger) (*Guest, error) {
	// Sockets are named through the directory's descriptor: a socket address holds 107 bytes.
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, listenError(dir, err)
	}
	known, err := token(d)
	if err != nil {
		_ = d.Close()
		return nil, listenError(dir, err)
	}
	path := socketPath(d, vm.FileVsock+"_"+strconv.Itoa(agentproto.ControlPort))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = d.Close()
		return nil, listenError(dir, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		_ = d.Close()
		return nil, listenError(dir, err)
	}
	g := &Guest{dir: d, listener: l, config: config, token: known, events: events, log: log, booted: config == nil}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.tasks.Go(g.accept)
	return g, nil
}

func listenError(dir string, err error) error {
	return fault.New(fault.Internal, "cannot listen for its agent: %w", err).WithOp("open the vsock device in", dir).
		WithHint("check that the directory exists and belongs to the daemon")
}

// socketPath names a file of an open directory in a way that always fits a socket address.
func socketPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// Close ends the control connection, refuses further ones and waits until no more events come.
// Streams from Dial stay open.
func (g *Guest) Close() error {
	g.mu.Lock() // whoever is in connect is waited for, and nobody enters it any more
	g.cancel()
	g.mu.Unlock()
	err := g.listener.Close() // removes the socket too
	if errors.Is(err, net.ErrClosed) {
		return nil // closed before
	}
	g.tasks.Wait()
	return errors.Join(err, g.dir.Close())
}
