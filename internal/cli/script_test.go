package cli_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/buildinfo"
	"banger/internal/cli"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
)

// TestMain makes this test binary the commands that the scripts run: the real banger, and a daemon
// that keeps its VMs in memory.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"banger":  func() { os.Exit(banger()) },  //nolint:forbidigo // a main function
		"bangerd": func() { os.Exit(bangerd()) }, //nolint:forbidigo // a main function
	})
}

// banger differs from cmd/banger in what a script may choose: whether it counts as root, and its build.
func banger() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	build := buildinfo.Info{Version: "2.0.0", Commit: "c0ffee", Stamp: 200, Go: "go1.26"}
	if os.Getenv("TEST_OLD") != "" {
		build.Stamp = 50
	}
	return cli.Run(ctx, &app.App{IO: term.System(os.Getenv), Build: build, Root: os.Getenv("TEST_ROOT") != ""}, os.Args[1:])
}

// raceExit keeps the race detector from waiting a second at the end of every command.
const raceExit = "GORACE=atexit_sleep_ms=0"

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Deadline:            time.Now().Add(2 * time.Minute),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			env.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "run"))
			env.Vars = append(env.Vars, raceExit)
			env.Setenv("BANGER_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			socket := filepath.Join(env.WorkDir, "d.sock")
			env.Setenv("BANGER_SOCKET", socket)
			if err := os.MkdirAll(home, 0o700); err != nil {
				return err
			}
			if filepath.Base(env.WorkDir) == "script-absent" {
				return nil
			}
			stop, err := serve(socket)
			if err != nil {
				return err
			}
			env.Defer(stop)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  exitStatus,
			"await":   await,
			"capture": capture,
		},
	})
}

// exitStatus runs `status N COMMAND…`: the command must end with exactly that status.
func exitStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%v: exit status %d, want %s", args[1:], got, args[0])
	}
}

// await runs `await TEXT COMMAND…`: the command is run again until it prints the text.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await TEXT COMMAND...")
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
	}
	ts.Fatalf("%v never printed %q", args[1:], args[0])
}

// capture runs `capture NAME`: the variable gets what the last command printed.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: capture NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
