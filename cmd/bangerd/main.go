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
	var err error
	switch flag.Arg(0) {
	case "":
		err = serve(ctx, *path)
	case "nat": // what `banger internal nat` runs
		err = nat(ctx, flag.Args()[1:])
	default:
		err = fault.New(fault.Invalid, "it takes no arguments").WithOp("bangerd", flag.Arg(0)).WithHint("see bangerd --help")
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

func serve(ctx context.Context, path string) error {
	cfg, err := config.LoadDaemon(path)
	if err != nil {
		return err
	}
	return daemon.Run(ctx, cfg)
}

func nat(ctx context.Context, args []string) error {
	if len(args) != 2 || args[0] != "up" && args[0] != "down" {
		return fault.New(fault.Invalid, "it is not said what to do").WithOp("bangerd", "nat").WithHint("bangerd nat up TAP, or down TAP")
	}
	return daemon.SetNAT(ctx, args[1], args[0] == "up")
}
