// Command banger is what people type.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"banger/internal/buildinfo"
	"banger/internal/cli"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
)

func main() { os.Exit(run()) }

// garbage is how far the heap may grow, in percent, before it is collected. A command lives for some milliseconds: to list
// a thousand VMs, a collection at Go's 100 took a fifth of its time.
const garbage = 400

func run() int {
	debug.SetGCPercent(garbage)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, &app.App{
		IO:    term.System(os.Getenv),
		Build: buildinfo.Current(),
		Root:  os.Geteuid() == 0,
	}, os.Args[1:])
}
