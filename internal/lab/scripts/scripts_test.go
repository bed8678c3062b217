package scripts

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/lab/hoststate"
)

// fakeHost has what its file lists; scripts write that file.
type fakeHost struct{ file string }

func (h fakeHost) State(context.Context, string) (hoststate.State, error) {
	b, err := os.ReadFile(h.file)
	return strings.Fields(string(b)), err
}

func (h fakeHost) Begin(ctx context.Context) (func(context.Context) ([]string, error), error) {
	before, err := h.State(ctx, "")
	return func(ctx context.Context) ([]string, error) {
		after, err := h.State(ctx, "")
		return hoststate.Diff(before, after), err
	}, err
}

func suite(t *testing.T, scripts map[string]string) (Suite, *strings.Builder) {
	t.Helper()
	dir, out := t.TempDir(), &strings.Builder{}
	host := fakeHost{filepath.Join(t.TempDir(), "host")}
	if err := os.WriteFile(host.file, []byte("lo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, content := range scripts {
		file := filepath.Join(dir, name+".txtar")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		content = strings.ReplaceAll(content, "HOST", host.file)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Suite{Dir: dir, Work: t.TempDir(), Ledger: Ledger(t.TempDir()), Name: "one", Host: host, Out: out}, out
}

func TestRun(t *testing.T) {
	s, out := suite(t, map[string]string{
		"vm/life":      "exec sh -c 'echo $BANGER_STATE_DIR'\nstdout script-life/state\n",
		"vm/breaks":    "exec sh -c 'mkdir -p $BANGER_STATE_DIR/vms/a && echo why > $BANGER_STATE_DIR/vms/a/x.log'\nexec false\n",
		"crash/leaks":  "exec sh -c 'echo tap1 >> HOST'\n",
		"guest/skips":  "skip because\n",
		"network/same": "snapshot-host a\nsame-host a\nexec sh -c 'echo tap2 >> HOST'\n! same-host a\nexec sh -c 'echo lo > HOST; echo tap1 >> HOST'\nsame-host a\n",
	})
	s.Logs = t.TempDir()
	got, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (Result{Passed: 2, Failed: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, want := range []string{
		"run  vm/life\nok   vm/life (", "FAIL vm/breaks (", "FAIL crash/leaks (", "it left this on the host:\n     + tap1\n",
		"FAIL guest/skips", "a script may not skip itself: because", "ok   network/same",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	kept, err := os.ReadFile(filepath.Join(s.Logs, "vm-breaks", "script-breaks_state_vms_a_x.log"))
	if err != nil || string(kept) != "why\n" {
		t.Errorf("the failed script's log: %q, %v", kept, err)
	}
	if left, err := os.ReadDir(s.Work); err != nil || len(left) > 0 {
		t.Errorf("scripts left %v in the work directory, %v", left, err)
	}
}

func TestTimeout(t *testing.T) {
	s, out := suite(t, map[string]string{"vm/hangs": "exec sleep 60\n"})
	s.Timeout = time.Second
	begun := time.Now()
	if got, err := s.Run(t.Context()); err != nil || got.Failed != 1 {
		t.Errorf("got %+v, %v: %s", got, err, out)
	}
	if d := time.Since(begun); d > 20*time.Second {
		t.Errorf("a script with one second took %s", d)
	}
}

func TestMatch(t *testing.T) {
	s, _ := suite(t, map[string]string{"vm/life": "", "vm/stop": "", "crash/life": ""})
	for pattern, want := range map[string][]string{
		"":         {"crash/life", "vm/life", "vm/stop"},
		"vm":       {"vm/life", "vm/stop"},
		"vm/life":  {"vm/life"},
		"*/life":   {"crash/life", "vm/life"},
		"vm/[l-m]": nil,
		"network":  nil,
	} {
		s.Match = pattern
		got, err := s.Names()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", pattern, got, err, want)
		}
	}
	s.Match = "network"
	if _, err := s.Run(t.Context()); !fault.Is(err, fault.NotFound) {
		t.Errorf("a run of nothing: %v", err)
	}
	s.Match = "vm/["
	if _, err := s.Names(); !fault.Is(err, fault.Invalid) {
		t.Errorf("a malformed pattern: %v", err)
	}
}

// TestLabHostElsewhere holds that nothing is killed on a host that is not the lab.
func TestLabHostElsewhere(t *testing.T) {
	_, err := LabHost{}.Begin(t.Context())
	if !fault.Is(err, fault.WrongState) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestCommands(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"wait-for":           {"exec sh -c '(sleep 0.5; touch there) >/dev/null 2>&1 &'\nwait-for -timeout 20s test -e there\n", "ok  "},
		"wait-for never":     {"wait-for -timeout 300ms test -e there\n", "it still fails after 300ms"},
		"wait-for not":       {"! wait-for -timeout 300ms true\n", "it still succeeds after 300ms"},
		"kill-pid":           {"exec sh -c 'sleep 60 >/dev/null 2>&1 & echo {\\\"pid\\\": $!}'\njson-env pid PID\nkill-pid -TERM $PID\n! exec test -e /proc/$PID/exe\n", "ok  "},
		"kill-pid nonsense":  {"kill-pid 1\n", `"1" is no pid`},
		"crash-points usage": {"crash-points 1\n", "usage: crash-points LEAST FILE"},
		"json":               {"exec cat doc\njson state running\njson n 12345678901234567890\njson vms.len 2\njson vms.1.ok true\njson vms.0 '{\"ok\":false}'\n! json state stopped\n! json absent x\n-- doc --\n" + `{"state":"running","n":12345678901234567890,"vms":[{"ok":false},{"ok":true}]}`, "ok  "},
		"json differs":       {"exec echo [1,2]\njson . []\n", ". is [1,2]"},
		"json absent":        {"exec echo '{\"a\":{}}'\njson a.b 1\n", `a.b: there is no "b" in {}`},
		"json not":           {"exec echo hello\njson . 1\n", "the last output is not JSON"},
		"same-host unknown":  {"same-host x\n", `there is no snapshot "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, out := suite(t, map[string]string{"a/b": c.script})
			if _, err := s.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("the output lacks %q:\n%s", c.want, out)
			}
		})
	}
}

func TestQuery(t *testing.T) {
	got, err := query(`{"a":[{"b":"c"}]}`, "a.0.b")
	if d := cmp.Diff("c", got); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, path := range []string{"a.1", "a.x", "a.-1", "a.0.b.c", ""} {
		if v, err := query(`{"a":[{"b":"c"}]}`, path); err == nil {
			t.Errorf("%q: got %v, want an error", path, v)
		}
	}
}

// TestSystemd keeps the scripts that want a host with systemd apart.
func TestSystemd(t *testing.T) {
	s, _ := suite(t, map[string]string{"vm/plain": "# A script.\n", "vm/units": "# A script.\n# host: systemd\n"})
	for systemd, want := range map[bool]string{false: "vm/plain", true: "vm/units"} {
		s.Systemd = systemd
		if got, err := s.Names(); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%v: got %q, %v", systemd, got, err)
		}
	}
}

// TestLedger shares scripts between hosts, of which one is lost half-way.
func TestLedger(t *testing.T) {
	one, _ := suite(t, map[string]string{"vm/a": "exec true\n", "vm/b": "exec false\n", "vm/c": "exec true\n"})
	two := one
	two.Name = "two"
	if ours, err := one.Ledger.take("vm/a", one.Name); err != nil || !ours {
		t.Fatalf("not taken: %v", err)
	}
	runs := func(s Suite, want Result) {
		t.Helper()
		if got, err := s.Run(t.Context()); err != nil || got != want {
			t.Errorf("%s ran %+v, %v, want %+v", s.Name, got, err, want)
		}
	}
	runs(two, Result{Passed: 1, Failed: 1})
	for _, c := range []struct {
		host string
		left []string
	}{{two.Name, nil}, {one.Name, []string{"vm/a"}}} {
		if err := one.Ledger.Release(c.host); err != nil {
			t.Fatal(err)
		}
		if left, err := one.Left(); err != nil || !slices.Equal(left, c.left) {
			t.Errorf("without %s %q is left, %v", c.host, left, err)
		}
	}
	runs(two, Result{Passed: 1})
	runs(one, Result{})
	if got, err := one.Ledger.Result(); err != nil || (got != Result{Passed: 2, Failed: 1}) {
		t.Errorf("in all %+v, %v", got, err)
	}
}

// TestBrokenGuest runs a script again when the emulator broke its guest, and not more often than that.
func TestBrokenGuest(t *testing.T) {
	const says = "exec sh -c 'mkdir -p $BANGER_STATE_DIR/vms/a && echo stack guard page was hit > $BANGER_STATE_DIR/vms/a/console.log'\n"
	s, out := suite(t, map[string]string{
		"vm/once":   says + "exec sh -c 'test -e HOST.seen || { touch HOST.seen; exit 1; }'\n",
		"vm/always": says + "exec false\n",
		"vm/silent": "exec sh -c 'mkdir -p $BANGER_STATE_DIR/failed/op-1 && : > $BANGER_STATE_DIR/failed/op-1/console.log'\nexec sh -c 'test -e HOST.heard || { touch HOST.heard; exit 1; }'\n",
		"vm/sound":  "exec sh -c 'mkdir -p $BANGER_STATE_DIR/vms/a && : > $BANGER_STATE_DIR/vms/a/console.log'\nexec false\n",
	})
	got, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (Result{Passed: 2, Failed: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n := strings.Count(out.String(), "run  vm/sound"); n != 1 {
		t.Errorf("a quiet guest's script ran %d times, want 1", n)
	}
	if n := strings.Count(out.String(), "again vm/always: the emulator broke a guest's kernel, see script-always/state/vms/a/console.log\n"); n != attempts-1 {
		t.Errorf("run again %d times:\n%s", n, out)
	}
	if n := strings.Count(out.String(), "run  vm/once"); n != 2 {
		t.Errorf("run %d times, want 2", n)
	}
}

// TestOverdue ends a script whose command is gone while what that began holds its output open.
func TestOverdue(t *testing.T) {
	s, out := suite(t, map[string]string{"vm/hangs": "exec sh hang.sh\n-- hang.sh --\nsleep 60 & echo $! > HOST.pid; exit 0\n"})
	s.Timeout = time.Second
	s.Host = killingHost{s.Host.(fakeHost)}
	begun := time.Now()
	if got, err := s.Run(t.Context()); err != nil || got.Failed != 1 {
		t.Errorf("got %+v, %v:\n%s", got, err, out)
	}
	if took := time.Since(begun); took > 50*time.Second {
		t.Errorf("it took %s", took)
	}
}

// killingHost ends the process that a script left.
type killingHost struct{ fakeHost }

func (h killingHost) Begin(context.Context) (func(context.Context) ([]string, error), error) {
	return func(context.Context) ([]string, error) {
		text, err := os.ReadFile(h.file + ".pid")
		if err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, err
		}
		return nil, syscall.Kill(pid, syscall.SIGKILL)
	}, nil
}
