// Command bangerd is banger's daemon.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"banger/internal/buildinfo"
	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/fault"
)

func main() { os.Exit(run()) }

func run() int {
	path := flag.String("config", config.SystemFile, "configuration `FILE`")
	build := flag.Bool("build", false, "print which build this is, as JSON")
	flag.Parse()
	if *build {
		_ = json.NewEncoder(os.Stdout).Encode(buildinfo.Current()) // whoever asked has gone
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := config.LoadDaemon(*path)
	if err == nil {
		err = daemon.Run(ctx, cfg)
	}
	if err == nil {
		return 0
	}
	f := fault.From(err)
	fmt.Fprintln(os.Stderr, "bangerd:", f)
	if f.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", f.Hint)
	}
	return 1
}
