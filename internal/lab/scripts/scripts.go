// Package scripts runs the end-to-end scripts, testscript files in <dir>/<area>/<name>.txtar, one after
// another on the host that it is on: the lab. Each script has a home, a state directory and a daemon of
// its own; what one leaves on the host is removed before the next begins, and counted against it.
package scripts

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/fault"
	"banger/internal/lab/hoststate"
)

// Suite is what to run and where.
type Suite struct {
	Dir     string        // holds the areas
	Match   string        // "area", "area/name" or a path.Match pattern of those; empty is all
	Systemd bool          // the scripts that want a host with systemd; else all others
	Work    string        // where scripts have their homes; a file system that can reflink
	Images  string        // directory of prepared images, cloned into each state directory; empty is none
	Ledger  Ledger        // shares the scripts with other hosts
	Name    string        // this host's in the ledger
	Logs    string        // logs of failed scripts are copied here; empty is nowhere
	Timeout time.Duration // of one script; 10 minutes when zero
	Verbose bool          // print everything that scripts did, also of those that passed
	Host    Host
	Out     io.Writer
}

// Host is the host that the scripts run on.
type Host interface {
	// State is what exists on the host now, with what is below a directory; "" is none.
	State(ctx context.Context, below string) (hoststate.State, error)
	// Begin returns a function that makes the host what it was, and tells what it found in excess.
	Begin(ctx context.Context) (end func(context.Context) (left []string, err error), err error)
}

const (
	scriptTimeout = 10 * time.Minute
	overdueGrace  = 5 * time.Second
)

// Result counts scripts.
type Result struct{ Passed, Failed int }

// Run runs the scripts that match and that no other host takes, and prints how each went. No match is fault.NotFound.
func (s Suite) Run(ctx context.Context) (r Result, err error) {
	names, err := s.Names()
	if err != nil {
		return r, err
	}
	if len(names) == 0 {
		return r, fault.New(fault.NotFound, "no script matches %q", s.Match).WithOp("run scripts", s.Dir).
			WithHint("scripts are named area/name, as in vm/life")
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		ours, err := s.Ledger.take(name, s.Name)
		if err != nil {
			return r, err
		}
		if !ours {
			continue
		}
		verdict := hasPassed
		bad, err := s.one(ctx, name)
		if bad {
			verdict = hasFailed
			r.Failed++
		} else {
			r.Passed++
		}
		if err == nil {
			err = s.Ledger.end(name, verdict)
		}
		if err != nil {
			return r, fmt.Errorf("run script %s: %w", name, err)
		}
	}
	return r, nil
}

// wantsSystemd is the line in the comment at a script's head by which it asks for a host with systemd.
const wantsSystemd = "# host: systemd"

// Names lists the scripts that match, as area/name, in order.
func (s Suite) Names() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(s.Dir, "*", "*.txtar"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file)) + "/" + strings.TrimSuffix(filepath.Base(file), ".txtar")
		ok, err := matches(s.Match, name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if slices.Contains(strings.Split(string(text), "\n"), wantsSystemd) == s.Systemd {
			out = append(out, name)
		}
	}
	return out, nil
}

// Left lists those that match and that no host has taken yet.
func (s Suite) Left() ([]string, error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, name := range names {
		taken, err := s.Ledger.taken(name)
		if err != nil {
			return nil, err
		}
		if !taken {
			left = append(left, name)
		}
	}
	return left, nil
}

func matches(pattern, name string) (bool, error) {
	area, _, _ := strings.Cut(name, "/")
	if pattern == "" || pattern == area {
		return true, nil
	}
	ok, err := path.Match(pattern, name)
	if err != nil {
		return false, fault.New(fault.Invalid, "%w", err).WithOp("match scripts", pattern)
	}
	return ok, nil
}

// attempts is how often a script is run whose guest the emulator broke.
const attempts = 3

// one runs a script, again where the emulator broke a guest. That is told, and counts as no failure of
// the script: nothing in banger can cause or cure it.
func (s Suite) one(ctx context.Context, name string) (failed bool, err error) {
	for left := attempts - 1; ; left-- {
		failed, broken, err := s.attempt(ctx, name)
		if err != nil || broken == "" || left == 0 {
			return failed, err
		}
		fmt.Fprintf(s.Out, "again %s: the emulator broke a guest's kernel, see %s\n", name, broken)
	}
}

func (s Suite) attempt(ctx context.Context, name string) (failed bool, broken string, err error) {
	cleanUp, err := s.Host.Begin(ctx)
	if err != nil {
		return false, "", err
	}
	end := sync.OnceValues(func() ([]string, error) { return cleanUp(ctx) })
	// A short path: a Unix socket's name has 107 bytes.
	work, err := os.MkdirTemp(s.Work, "e2e-")
	if err != nil {
		return false, "", err
	}
	fmt.Fprintf(s.Out, "run  %s\n", name)
	begun := time.Now()
	timeout := s.Timeout
	if timeout == 0 {
		timeout = scriptTimeout
	}
	t := &run{verbose: s.Verbose}
	// At its deadline a script's command is ended. What that command began may hold its output open, and
	// would be waited for without end.
	overdue := time.AfterFunc(timeout+overdueGrace, func() { _, _ = end() }) // its outcome is read below
	runScript(t, testscript.Params{
		Files: []string{filepath.Join(s.Dir, name+".txtar")}, WorkdirRoot: work, Deadline: begun.Add(timeout),
		Setup: func(env *testscript.Env) error { return s.furnish(ctx, env) }, Cmds: commands(ctx, s.Host),
		RequireUniqueNames: true,
	})
	if !overdue.Stop() {
		t.failed = true
		fmt.Fprintf(&t.log, "it did not end within %s, so its processes were ended\n", timeout)
	}
	if t.failed || s.Verbose {
		fmt.Fprint(s.Out, indent(t.log.String()))
	}
	if t.failed && s.Logs != "" {
		if err := keepLogs(work, filepath.Join(s.Logs, strings.ReplaceAll(name, "/", "-"))); err != nil {
			return false, "", err
		}
	}
	left, err := end()
	if err != nil {
		return false, "", fmt.Errorf("clean up: %w", err)
	}
	if len(left) > 0 && !t.failed { // one that failed half-way is excused
		t.failed = true
		fmt.Fprint(s.Out, indent("it left this on the host:\n"+strings.Join(left, "\n")))
	}
	verdict := "ok  "
	if t.failed {
		verdict = "FAIL"
	}
	fmt.Fprintf(s.Out, "%s %s (%.1f s)\n", verdict, name, time.Since(begun).Seconds())
	if t.failed {
		broken = BrokenGuest(work)
	}
	return t.failed, broken, os.RemoveAll(work)
}

// emulatorFaults are the traces of a guest that the emulator ran with the lab host's GS base, which happens
// to a few in a hundred. The page fault handler faults, and so on until the stack ends: the kernel tells of
// it on the console, or cannot, and Firecracker logs the triple fault. Nothing else that guests do here is one.
func emulatorFaults() [][]byte {
	return [][]byte{[]byte("stack guard page was hit"), []byte("KVM_EXIT_SHUTDOWN")}
}

// BrokenGuest names a log of a guest that the emulator broke, or is empty.
func BrokenGuest(work string) (log string) {
	tree, err := os.OpenRoot(work)
	if err != nil {
		return ""
	}
	defer tree.Close()
	_ = eachLog(tree, func(name string, content []byte) error { // what cannot be read is no excuse
		broken := silent(name, content)
		for _, trace := range emulatorFaults() {
			broken = broken || bytes.Contains(content, trace)
		}
		if broken {
			log = name
		}
		return nil
	})
	return log
}

// silent reports whether a log is the console of a guest that was given up, and is empty. The agent, once it runs,
// says there what keeps it from going on, before the daemon gives up; and a kernel that fails says why.
func silent(name string, content []byte) bool {
	return path.Base(name) == "console.log" && strings.Contains(name, "/failed/") && len(content) == 0
}

// furnish gives a script a home of its own, where the CLI and its daemon keep everything.
func (s Suite) furnish(ctx context.Context, env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	state := filepath.Join(env.WorkDir, "state")
	for name, dir := range map[string]string{
		"HOME": home, "BANGER_STATE_DIR": state, "XDG_RUNTIME_DIR": filepath.Join(env.WorkDir, "run"),
		"XDG_CONFIG_HOME": filepath.Join(home, "config"), "XDG_DATA_HOME": filepath.Join(home, "data"),
		"XDG_STATE_HOME": filepath.Join(home, "state"), "XDG_CACHE_HOME": filepath.Join(home, "cache"),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		env.Setenv(name, dir)
	}
	env.Setenv("BANGER_SOCKET", filepath.Join(env.WorkDir, "run", "banger.sock"))
	env.Setenv("BANGER_WARM", "off")        // what begins by itself would be in every script's way; who wants it says so
	env.Setenv("BANGER_BOOT_TIMEOUT", "3m") // a Debian guest needs most of the ordinary minute on a busy machine
	env.Setenv("USER", "root")
	if s.Images == "" {
		return nil
	}
	// Reflinks: each script owns its images, and owning them costs nothing.
	return program(ctx, "cp", "-a", "--reflink=always", s.Images, filepath.Join(state, "images"))
}

// keepLogs copies the logs that a script made to where they outlive the lab host.
func keepLogs(work, to string) error {
	tree, err := os.OpenRoot(work)
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	return eachLog(tree, func(name string, content []byte) error {
		flat := strings.ReplaceAll(strings.TrimPrefix(name, "./"), "/", "_")
		return os.WriteFile(filepath.Join(to, flat), content, 0o600)
	})
}

func indent(s string) string {
	if s == "" {
		return ""
	}
	return "     " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n     ") + "\n"
}
