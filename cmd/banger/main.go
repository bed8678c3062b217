// Command banger is what people type.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"banger/internal/buildinfo"
	"banger/internal/cli"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, &app.App{
		IO:    term.System(os.Getenv),
		Build: buildinfo.Current(),
		Root:  os.Geteuid() == 0,
	}, os.Args[1:])
}
