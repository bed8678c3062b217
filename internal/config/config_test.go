package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adrg/xdg"

	"banger/internal/config"
	"banger/internal/fault"
	"banger/internal/vm"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// home gives the test a user of its own.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
	xdg.Reload()
	t.Cleanup(xdg.Reload)
	t.Chdir(dir)
	return dir
}

func TestLaterLayersWin(t *testing.T) {
	dir := home(t)
	write(t, filepath.Join(dir, "config/banger/config.toml"), "socket = '/user.sock'\nssh_key = '/key'\n[vm]\nvcpu = 3\nmemory = '2G'\nwork_disk = '1G'\n")
	write(t, filepath.Join(dir, "banger.toml"), "[vm]\nmemory = '3G'\nimage = 'mine'\nwork_disk = '2G'\n")
	t.Setenv("BANGER_VM_WORK_DISK", "4G")
	c, err := config.Load("")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Client{Socket: "/user.sock", SSHKey: "/key", VM: config.Defaults{Image: "mine", VCPU: 3, Memory: 3 * vm.GiB, WorkDisk: 4 * vm.GiB}}
	if c != want {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	t.Setenv("BANGER_SOCKET", "/env.sock")
	if c, err := config.Load(""); err != nil || c.Socket != "/env.sock" {
		t.Errorf("environment: %v, %v", c.Socket, err)
	}
	if c, err := config.Load("/flag.sock"); err != nil || c.Socket != "/flag.sock" {
		t.Errorf("flag: %v, %v", c.Socket, err)
	}
}

func TestMistakesNameTheLineAndTheWayOut(t *testing.T) {
	for _, c := range []struct{ name, file, text, want, hint string }{
		{"unknown key", "config/banger/config.toml", "socket = 'x'\n[vm]\nmemroy = '1G'\n", `line 3: there is no key "vm.memroy"`, `did you mean "vm.memory"?`},
		{"nothing like it", "config/banger/config.toml", "colour = 'x'\n", `line 1: there is no key "colour"`, "the keys here are socket"},
		{"wrong type", "config/banger/config.toml", "[vm]\nvcpu = 'two'\n", "line 2", "docs/configuration.md"},
		{"bad size", "config/banger/config.toml", "[vm]\nmemory = '512'\n", "it has no unit", ""},
		{"not toml", "config/banger/config.toml", "hello\n", "line 1", ""},
		{"project may not choose keys", "banger.toml", "ssh_key = '/etc/shadow'\n", `line 1: there is no key "ssh_key"`, "the keys here are vm.image"},
		{"project may not choose daemons", "banger.toml", "[daemon]\nmirror = 'x'\n", `there is no key "daemon`, "the keys here are"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := home(t)
			path := filepath.Join(dir, c.file)
			write(t, path, c.text)
			_, err := config.Load("")
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) || !strings.Contains(fault.From(err).Hint, c.hint) {
				t.Errorf("got %v\nhint %q\nwant %q, hint %q", err, fault.From(err).Hint, c.want, c.hint)
			}
		})
	}
}

func TestDaemon(t *testing.T) {
	dir := home(t)
	path := filepath.Join(dir, "system.toml")
	write(t, path, "[daemon]\nstate_dir = '/srv/banger'\nboot_timeout = '2m'\n[vm]\nimage = 'debian:13'\n")
	t.Setenv("RUNTIME_DIRECTORY", "/run/elsewhere")
	t.Setenv("STATE_DIRECTORY", "/never")
	t.Setenv("BANGER_LOG_LEVEL", "debug")
	d, err := config.LoadDaemon(path)
	if err != nil {
		t.Fatal(err)
	}
	if d.StateDir != "/srv/banger" || d.RuntimeDir != "/run/elsewhere" || d.Socket != "/run/elsewhere/bangerd.sock" ||
		d.BootTimeout != config.Duration(2*time.Minute) || d.StopTimeout != config.Duration(30*time.Second) ||
		d.LogLevel != "debug" || d.VM.Image != "debian:13" || d.VM.VCPU != 2 {
		t.Errorf("got %+v", d)
	}
	t.Setenv("BANGER_LOG_LEVEL", "loud")
	if _, err := config.LoadDaemon(path); !fault.Is(err, fault.Invalid) {
		t.Errorf("log level: %v", err)
	}
	t.Setenv("BANGER_LOG_LEVEL", "info")
	t.Setenv("BANGER_STOP_TIMEOUT", "-3s")
	if _, err := config.LoadDaemon(path); err == nil || !strings.Contains(err.Error(), `read environment "BANGER_STOP_TIMEOUT"`) {
		t.Errorf("timeout: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("[vm]\nmemory = '1G'\n")
	f.Add("a.b.c = 1\n[[x]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "c.toml")
		write(t, path, text)
		if _, err := config.LoadDaemon(path); err != nil && fault.CodeOf(err) == "" {
			t.Errorf("%v", err)
		}
	})
}
