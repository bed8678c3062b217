// Package supervise keeps the agent's server running. It is a process of its own and does nothing
// else, so that nothing but a signal can end it.
package supervise

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// Bounds of the pause before a server that died is started again.
const (
	minPause = 100 * time.Millisecond
	maxPause = 10 * time.Second
	healthy  = 30 * time.Second // a server that lived as long starts anew with minPause
)

// Terminating is the signal by which a supervisor tells its server that the guest goes down.
const Terminating = syscall.SIGUSR1

// Supervisor restarts a server. All fields are required.
type Supervisor struct {
	Start func() (*os.Process, error)
	// Term receives each SIGTERM.
	Term <-chan os.Signal
	// AwaitsUs reports whether init waits for every process to heed SIGTERM before it goes on.
	AwaitsUs func() bool
	Log      *slog.Logger
}

// Run supervises until ctx ends or init awaits our end.
//
// A guest's init ends every process with SIGTERM before it goes down. That signal is how we learn
// of it, whatever the init: the supervisor hears it for both, tells the server, and the server
// tells the host. The server itself ignores SIGTERM and stays to the very end, because it is by the
// agent's silence that the host tells a halted guest from one that is still writing to its disks.
//
// A SIGTERM that some user sent us looks the same and costs one false farewell; so we stay, too,
// unless what ends the processes waits for us to go.
func (s *Supervisor) Run(ctx context.Context) {
	wait := minPause
	for {
		begun := time.Now()
		p, err := s.Start()
		if err != nil {
			s.Log.Error("start server", "error", err)
		} else if s.attend(ctx, p) {
			return
		}
		if time.Since(begun) > healthy {
			wait = minPause
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.Term:
			timer.Stop() // there is no server to tell: the next one may still have the time
			if s.AwaitsUs() {
				return
			}
		case <-ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, maxPause)
	}
}

// attend waits for a server's death and passes signals on. It reports whether to leave.
func (s *Supervisor) attend(ctx context.Context, p *os.Process) (leave bool) {
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		state, err := p.Wait()
		s.Log.Error("server ended", "state", state.String(), "error", err)
	}()
	for {
		select {
		case <-dead:
			return ctx.Err() != nil
		case <-ctx.Done():
			_ = p.Kill() // it may have ended by itself
			<-dead
			return true
		case <-s.Term:
			_ = p.Signal(Terminating) // it may be dying: then there is nobody to tell
			if s.AwaitsUs() {
				return true
			}
		}
	}
}
