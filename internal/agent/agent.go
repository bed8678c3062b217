// Package agent is the part of banger that lives in a guest after its init has taken over. It keeps
// a control connection to the host and answers the host's requests.
//
// It knows neither vsock nor the machine it runs on: package guesttest runs it over Unix sockets.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"banger/internal/agentproto"
)

// Agent serves one guest. All fields are required.
type Agent struct {
	Listener net.Listener                                // where the host's requests arrive
	DialHost func(ctx context.Context) (net.Conn, error) // opens a control connection
	Hello    agentproto.Hello                            // without versions, phase and token, which Run sets
	Identity Identity
	Machine  Machine
	// SSH returns what serves SSH on a connection until that ends or ctx does, and closes it; or why nobody can be served.
	SSH func() (serve func(ctx context.Context, conn net.Conn), err error)
	Log *slog.Logger

	// Terminating is sent to when the guest's init has begun to end every process.
	Terminating <-chan struct{}
}

// Identity is what the agent itself knows of the VM that its guest is.
type Identity struct {
	Token    string               `json:"token"`    // of its Hello
	Services []agentproto.Service `json:"services"` // what Ready waits for
}

// Machine is the guest that the agent lives in.
type Machine interface {
	Info() agentproto.Info
	Stats() agentproto.Stats
	// Uptime is the time since the kernel started.
	Uptime() time.Duration
	// Listening returns the TCP ports on which some process listens.
	Listening() (map[int]bool, error)
	// Listeners tells which, and where, the first of them where there are many.
	Listeners() (agentproto.Listeners, error)
	Clock
	// Grow enlarges the file system on a device that has become as large as size, in bytes. It waits for the
	// device to become so.
	Grow(ctx context.Context, device string, size int64) error
	// Rename gives the machine another hostname.
	Rename(hostname string) error
	// Sync writes everything to the disks.
	Sync()
	// Reseed has the kernel's random numbers depend on entropy too, from the next one on.
	Reseed(entropy []byte) error
	// Adopt makes the machine another one while it runs. It goes on after a failure; all are returned.
	Adopt(ctx context.Context, cfg agentproto.GuestConfig) error
	// Keep remembers who the agent is now, for a server that is started again.
	Keep(identity Identity) error
	// Restart has the guest's init end everything in order and reset the machine, and does so
	// itself when init does not. It returns once that has begun.
	Restart()
}

// Run serves until ctx ends or the listener fails.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &control{agent: a, identity: a.Identity, intent: agentproto.IntentUnknown, again: make(chan struct{}, 1)}
	r := &requests{agent: a, control: h, dials: make(chan struct{}, maxDials), open: make(chan struct{}, maxRequests)}
	r.endSessions() // there are none

	var wg sync.WaitGroup
	wg.Go(func() { h.run(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-a.Terminating:
				h.farewell()
				r.endSessions()
			}
		}
	})
	stop := context.AfterFunc(ctx, func() { _ = a.Listener.Close() })
	defer stop()
	err := r.serve(ctx)
	cancel()
	wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// pause waits for d, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
