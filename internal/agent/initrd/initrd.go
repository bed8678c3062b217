// Package initrd is the agent's first life: as PID 1 of the initrd it brings the machine from a bare
// kernel to the point where the distribution's own init can take over, and leaves the resident agent
// behind.
package initrd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent"
	"banger/internal/agent/machine"
	"banger/internal/agent/network"
	"banger/internal/agent/settings"
	"banger/internal/agentproto"
)

// Bounds of the boot. Whatever hangs, the machine resets: the host then sees that it is gone.
const (
	bootBudget   = 2 * time.Minute
	deviceBudget = 10 * time.Second // for a disk to appear once its driver is there
	dialBudget   = 30 * time.Second
	failPause    = time.Second // for the last words to leave the machine
	poll         = 5 * time.Millisecond
)

// Where things are.
const (
	newRoot    = "/sysroot"
	moduleList = "/modules"
)

// Boot is PID 1.
type Boot struct {
	Dial     func(ctx context.Context) (net.Conn, error) // to the host's control port
	Version  string                                      // of the agent
	Resident []string                                    // arguments by which this executable becomes the resident agent
	Log      *slog.Logger                                // to the console

	conn    net.Conn // nil until the host has answered
	token   string   // by which the host will know the resident agent
	pending []agentproto.Progress
}

// stageError says which stage a boot failed at.
type stageError struct {
	stage string
	err   error
}

func (e *stageError) Error() string { return e.stage + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

func at(stage string, err error) error {
	if err == nil {
		return nil
	}
	return &stageError{stage, err}
}

// Run boots. It never returns: either the distribution's init takes this process over, or the
// machine is reset.
func (b *Boot) Run() {
	ctx, cancel := context.WithTimeout(context.Background(), bootBudget)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- b.boot(ctx) }()
	select {
	case err := <-failed:
		b.fail(err)
	case <-ctx.Done():
		b.fail(fmt.Errorf("the boot took longer than %v", bootBudget))
	}
	machine.Reset()
	select {} // the kernel refused: there is nothing left to try
}

// fail tells the host and the console why there will be no guest.
func (b *Boot) fail(err error) {
	b.Log.Error("the boot failed", "error", err)
	stage := "boot"
	if s, ok := errors.AsType[*stageError](err); ok {
		stage, err = s.stage, s.err
	}
	if b.conn != nil {
		msg := err.Error()
		b.send(agentproto.FromAgent{Failed: &agentproto.Failed{Stage: stage, Msg: msg[:min(len(msg), 1000)]}})
	}
	<-time.After(failPause)
}

// boot takes the machine through its stages. It returns only when one of them fails.
func (b *Boot) boot(ctx context.Context) error {
	b.done(agentproto.StageKernel)
	if err := mountKernel(); err != nil {
		return at(agentproto.StageModules, err)
	}
	if err := takeConsole(); err != nil {
		return at(agentproto.StageModules, err)
	}
	if err := loadModules(moduleList); err != nil {
		return at(agentproto.StageModules, err)
	}
	b.done(agentproto.StageModules)

	// The host comes before the disks, so that it can be told what is wrong with them.
	cfg, err := b.meetHost(ctx)
	if err != nil {
		return at(agentproto.StageConfig, err)
	}
	if err := b.mountDisks(ctx, cfg.Mounts); err != nil {
		return at(agentproto.StageDisks, err)
	}
	b.done(agentproto.StageDisks)
	if err := b.apply(cfg); err != nil {
		return at(agentproto.StageConfig, err)
	}
	b.done(agentproto.StageConfig)
	return at(agentproto.StageInit, b.handOver(cfg))
}

// meetHost dials until the host answers, and returns the guest config.
func (b *Boot) meetHost(ctx context.Context) (agentproto.GuestConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, dialBudget)
	defer cancel()
	conn, err := b.dial(ctx)
	if err != nil {
		return agentproto.GuestConfig{}, fmt.Errorf("reach the host: %w", err)
	}
	w, err := agent.Greet(conn, Hello(b.Version, agentproto.PhaseBoot))
	if err != nil {
		return agentproto.GuestConfig{}, err
	}
	if w.Config == nil {
		return agentproto.GuestConfig{}, errors.New("the host sent no guest config")
	}
	b.conn, b.token = conn, w.Token
	for _, p := range b.pending {
		b.send(agentproto.FromAgent{Progress: &p})
	}
	if _, err := agent.Follow(machine.Clock{}, w.Now, b.Log); err != nil {
		b.Log.Error("clock", "error", err)
	}
	return *w.Config, nil
}

func (b *Boot) dial(ctx context.Context) (net.Conn, error) {
	for told := false; ; told = true {
		conn, err := b.Dial(ctx)
		if err == nil {
			return conn, nil
		}
		if !told { // the console is all that the host may ever hear
			b.Log.Warn("the host does not answer yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * poll):
		}
	}
}

// done reports that a stage has ended; what ended before the host was there is told once it is.
func (b *Boot) done(stage string) {
	p := agentproto.Progress{Stage: stage, Uptime: machine.Uptime()}
	if b.conn == nil {
		b.pending = append(b.pending, p)
		return
	}
	b.send(agentproto.FromAgent{Progress: &p})
}

// send never fails the boot: a guest whose daemon was just restarted boots all the same, and its
// resident agent dials again.
func (b *Boot) send(f agentproto.FromAgent) {
	err := b.conn.SetWriteDeadline(time.Now().Add(failPause))
	if err == nil {
		err = agentproto.WriteFrame(b.conn, f)
	}
	if err != nil {
		b.Log.Error("tell the host", "error", err)
	}
}

// Hello describes this guest to the host.
func Hello(version string, phase agentproto.Phase) agentproto.Hello {
	return agentproto.Hello{Agent: version, Arch: arch, BootID: machine.BootID(), Phase: phase}
}

// apply makes the mounted root, and the kernel, this VM's.
func (b *Boot) apply(cfg agentproto.GuestConfig) error {
	root, err := os.OpenRoot(newRoot)
	if err != nil {
		return err
	}
	defer root.Close()
	if cfg.Hostname != "" {
		if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	// None of these keeps a guest from booting; on the console they explain what it then lacks.
	if err := settings.Write(root, cfg); err != nil {
		b.Log.Error("settings", "error", err)
	}
	if err := network.Configure(cfg.Network); err != nil {
		b.Log.Error("network", "error", err)
	}
	return nil
}
