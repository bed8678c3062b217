// Package app is what every command gets: streams, settings, and a way to the daemon.
package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"banger/internal/buildinfo"
	"banger/internal/cli/exit"
	"banger/internal/cli/format"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/config"
	"banger/internal/fault"
	"banger/internal/op"
)

// App is one run of the command.
type App struct {
	IO    *term.IO
	Build buildinfo.Info
	Root  bool // may start a daemon

	Socket string          // --socket; "" leaves it to the configuration
	Output Output          // --output
	Format format.Template // --format

	config   *config.Client // once it has been read
	hasEnded atomic.Bool
}

// Report prints an error as the user asked for it.
func (a *App) Report(err error) {
	if _, silent := errors.AsType[exit.Status](err); silent || err == nil {
		return
	}
	if a.Output == JSON {
		term.ErrorJSON(a.IO.Err, err)
		return
	}
	term.Error(a.IO.Err, a.IO.ErrPalette(), err)
}

// Hint prints a line about what to do next, unless only data is wanted.
func (a *App) Hint(format string, args ...any) {
	if !a.Data() {
		fmt.Fprintln(a.IO.Err, a.IO.ErrPalette().Dim(term.Escape(fmt.Sprintf(format, args...))))
	}
}

// Follow shows an operation until it ends. Ctrl-C detaches from it. The operation's own failure is
// returned as the error, beside the operation.
func (a *App) Follow(ctx context.Context, c *client.Client, o op.Operation) (op.Operation, error) {
	final, err := term.Follow(ctx, a.IO, func(ctx context.Context, update func(op.Operation)) (op.Operation, error) {
		return c.Follow(ctx, o.ID, update)
	})
	return a.ended(ctx, o.ID, final, err)
}

// FollowOn is Follow for a caller who shows the operation in his own way.
func (a *App) FollowOn(ctx context.Context, c *client.Client, o op.Operation, update func(op.Operation)) (op.Operation, error) {
	final, err := c.Follow(ctx, o.ID, update)
	return a.ended(ctx, o.ID, final, err)
}

// Ended reports whether an operation has ended while this followed it: there may be other VMs than before.
func (a *App) Ended() bool { return a.hasEnded.Load() }

func (a *App) ended(ctx context.Context, id op.ID, final op.Operation, err error) (op.Operation, error) {
	if err == nil && final.State.Ended() {
		a.hasEnded.Store(true)
	}
	switch {
	case ctx.Err() != nil:
		return final, fault.New(fault.Canceled, "you left operation %s, which goes on", id).
			WithHint("follow it with `banger op follow %s`, or call it off with `banger op cancel %s`", id, id)
	case err != nil:
		return final, err
	case final.Error != nil:
		return final, final.Error
	case final.State == op.Canceled:
		return final, fault.New(fault.Canceled, "operation %s was called off", id)
	default:
		a.Warn(final)
		return final, nil
	}
}

// Warn prints what an operation warns of, unless only data is wanted: then it is in that.
func (a *App) Warn(o op.Operation) {
	if a.Data() {
		return
	}
	for _, w := range o.Warnings {
		fmt.Fprintf(a.IO.Err, "%s %s\n", a.IO.ErrPalette().Yellow("warning:"), term.Escape(w))
	}
}

// Begun prints the id of an operation that nobody waits for.
func (a *App) Begun(o op.Operation) error {
	if a.Data() {
		return a.Print(o)
	}
	a.Warn(o)
	fmt.Fprintln(a.IO.Out, o.ID)
	return nil
}

// Config returns the user's settings. Flags must have been parsed.
func (a *App) Config() (config.Client, error) {
	if a.config == nil {
		c, err := config.Load(a.Socket)
		if err != nil {
			return config.Client{}, err
		}
		if c.Socket, err = filepath.Abs(c.Socket); err != nil { // programs that get it may work elsewhere
			return config.Client{}, fault.New(fault.Invalid, "%w", err).WithOp("connect to", c.Socket)
		}
		a.config = &c
	}
	return *a.config, nil
}

// SocketPath is where the daemon listens.
func (a *App) SocketPath() (string, error) {
	cfg, err := a.Config()
	return cfg.Socket, err
}
