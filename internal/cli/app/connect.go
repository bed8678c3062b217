package app

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"time"

	"banger/internal/buildinfo"
	"banger/internal/cli/daemonstart"
	"banger/internal/client"
	"banger/internal/config"
	"banger/internal/fault"
)

// upgradeWait bounds how long a daemon may take to execute its newer build.
const upgradeWait = 30 * time.Second

// Connect returns a client for a daemon that answers. An absent one is started when this is root; a
// daemon of an older build is asked once to execute its newer one.
func (a *App) Connect(ctx context.Context) (*client.Client, error) {
	cfg, err := a.Config()
	if err != nil {
		return nil, err
	}
	c := client.New(cfg.Socket)
	if a.Root {
		c.Revive = func(ctx context.Context) error { return start(ctx, c, cfg.Socket) }
	}
	build, err := c.Version(ctx)
	if client.Absent(err) && c.Revive != nil {
		if err := c.Revive(ctx); err != nil {
			return nil, err
		}
		build, err = c.Version(ctx)
	}
	if err != nil {
		return nil, Unreachable(cfg.Socket, err)
	}
	if buildinfo.Newer(a.Build, build) {
		a.upgrade(ctx, c, build)
	}
	return c, nil
}

// Existing returns a client for a daemon that may or may not be there.
func (a *App) Existing() (*client.Client, string, error) {
	cfg, err := a.Config()
	if err != nil {
		return nil, "", err
	}
	return client.New(cfg.Socket), cfg.Socket, nil
}

// upgrade is a courtesy: when it cannot be had, the older daemon does the work.
func (a *App) upgrade(ctx context.Context, c *client.Client, old buildinfo.Info) {
	ctx, cancel := context.WithTimeout(ctx, upgradeWait)
	defer cancel()
	up, err := c.Upgrade(ctx)
	if err != nil {
		a.Hint("the daemon is older than this command (%s) and did not upgrade itself: %v", old.Version, err)
		return
	}
	if !up.Done {
		return
	}
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		if now, err := c.Version(ctx); err == nil && now != old {
			return
		}
		select {
		case <-ctx.Done():
			a.Hint("the daemon did not come back as %s within %s", up.To.Version, upgradeWait)
			return
		case <-poll.C:
		}
	}
}

// start starts a daemon, and returns once it answers.
func start(ctx context.Context, c *client.Client, socket string) error {
	daemon, err := config.LoadDaemon(config.SystemFile)
	if err != nil {
		return err
	}
	log := filepath.Join(daemon.StateDir, "bangerd.out") // what it says before its own log is open
	return daemonstart.Start(ctx, socket, log, func(ctx context.Context) error {
		_, err := c.Version(ctx)
		return err
	})
}

// Unreachable says what to do about a daemon that could not be asked.
func Unreachable(socket string, err error) error {
	switch {
	case client.Absent(err):
		if e, ok := errors.AsType[*net.OpError](err); ok {
			err = e.Err // the socket is said already
		}
		return fault.New(fault.Unavailable, "no daemon answers: %w", err).WithOp("connect to", socket).
			WithHint("run `sudo banger setup` once, which installs and starts it")
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Forbidden, "you may not use the daemon's socket").WithOp("connect to", socket).
			WithHint("join its group with `sudo usermod -aG banger $USER` and log in again; `banger doctor` tells more")
	default:
		return err
	}
}
