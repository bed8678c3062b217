package config_test

import (
	"log/slog"
	"maps"
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
	system := filepath.Join(dir, "system.toml")
	write(t, system, "socket = '/system.sock'\nssh_key = '~/key'\n[vm]\nvcpu = 1\nroot_disk = '9G'\n[daemon]\nmirror = 'x'\n")
	write(t, filepath.Join(dir, "config/banger/config.toml"), "socket = '/user.sock'\n[vm]\nvcpu = 3\nmemory = '2G'\nwork_disk = '1G'\n")
	write(t, filepath.Join(dir, "banger.toml"), "[vm]\nmemory = '3G'\nimage = 'mine'\nwork_disk = '2G'\n")
	t.Setenv("BANGER_VM_WORK_DISK", "4G")
	c, err := config.LoadFrom(system, "")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Client{Socket: "/user.sock", SSHKey: filepath.Join(xdg.Home, "key"), VM: config.Defaults{
		Image: "mine", VCPU: 3, Memory: 3 * vm.GiB, RootDisk: 9 * vm.GiB, WorkDisk: 4 * vm.GiB,
	}}
	if c != want {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	t.Setenv("BANGER_SOCKET", "/env.sock")
	if c, err := config.LoadFrom(system, ""); err != nil || c.Socket != "/env.sock" {
		t.Errorf("environment: %v, %v", c.Socket, err)
	}
	if c, err := config.LoadFrom(system, "/flag.sock"); err != nil || c.Socket != "/flag.sock" {
		t.Errorf("flag: %v, %v", c.Socket, err)
	}
}

func TestClientFindsTheSocketInTheDaemonsRuntimeDir(t *testing.T) {
	dir := home(t)
	system := filepath.Join(dir, "system.toml")
	write(t, system, "[daemon]\nruntime_dir = '/run/elsewhere'\n")
	c, err := config.LoadFrom(system, "")
	if err != nil {
		t.Fatal(err)
	}
	d, err := config.LoadDaemon(system)
	if err != nil || c.Socket != d.Socket || c.Socket != "/run/elsewhere/bangerd.sock" {
		t.Errorf("the client goes to %s, the daemon is at %s, %v", c.Socket, d.Socket, err)
	}
}

func TestMistakesNameTheLineAndTheWayOut(t *testing.T) {
	const user, project, docs = "config/banger/config.toml", "banger.toml", "see docs/configuration.md for each key's type"
	for _, c := range []struct{ name, file, text, want, hint string }{
		{"unknown key", user, "socket = 'x'\n[vm]\nmemroy = '1G'\n", `line 3: there is no key "vm.memroy"`, `did you mean "vm.memory"?`},
		{"unknown table", user, "[vms]\nmemory = '1G'\n", `line 1: there is no key "vms"`, `did you mean "vm"?`},
		{"nothing like it", user, "colour = 'x'\n", `line 1: there is no key "colour"`, "the keys here are socket, ssh_key, vm.image, vm.vcpu, vm.memory, vm.root_disk, vm.work_disk, vm.timezone, vm.locale"},
		{"text for a number", user, "[vm]\nvcpu = 'two'\n", "line 2: vm.vcpu must be a whole number", docs},
		{"a fraction", user, "[vm]\nvcpu = 1.5\n", "line 2: vm.vcpu must be a whole number", docs},
		{"a number for text", user, "socket = 3\n", "line 1: socket must be text in quotes", docs},
		{"a size that is a number", user, "[vm]\nmemory = 512\n", "line 2: vm.memory must be text in quotes", docs},
		{"a list of sizes", user, "[vm]\nmemory = ['1G']\n", "line 2: vm.memory must be text in quotes", docs},
		{"a key for a table", user, "\nvm = 3\n", "line 2: vm must be a table", docs},
		{"bad size", user, "[vm]\n\nmemory = '512'\n", `line 3: read size "512": it has no unit`, docs},
		{"negative size", user, "[vm]\nmemory = '-1G'\n", `line 2: read size "-1G": `, docs},
		{"bad time zone", user, "[vm]\ntimezone = '../etc/shadow'\n", `line 2: read time zone "../etc/shadow": it is not a time zone`, docs},
		{"bad locale", user, "[vm]\nlocale = 'english'\n", `line 2: read locale "english": it is not a locale`, docs},
		{"twice", user, "[vm]\nvcpu = 1\nvcpu = 2\n", "line 3: key vcpu is already defined", docs},
		{"not toml", user, "hello\n", "line 1: expected '='", docs},
		{"too large", user, strings.Repeat("#", 1<<20+1), "it is larger than 1 MiB", ""},
		{"a user may not configure the daemon", user, "[daemon]\nmirror = 'x'\n", `line 1: there is no key "daemon"`, "only the daemon goes by it: put it into /etc/banger/config.toml"},
		{"a checkout may not choose keys", project, "[vm]\nvcpu = 1\n[ssh_key]\n", `line 3: there is no key "ssh_key"`, "a checkout may not choose it: put it into DIR/config/banger/config.toml"},
		{"a checkout may not choose sockets", project, "socket = '/tmp/evil'\n", `line 1: there is no key "socket"`, "a checkout may not choose it: put it into DIR/config/banger/config.toml"},
		{"a checkout may not configure the daemon", project, "[daemon]\nmirror = 'x'\n", `line 1: there is no key "daemon"`, "only the daemon goes by it: put it into /etc/banger/config.toml"},
		{"nor by a dotted key", project, "daemon.mirror = 'x'\n", `line 1: there is no key "daemon`, "only the daemon goes by it: put it into /etc/banger/config.toml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := home(t)
			path := filepath.Join(dir, c.file)
			write(t, path, c.text)
			_, err := config.LoadFrom(filepath.Join(dir, "none.toml"), "")
			want, hint := `read configuration "`+path+`": `+c.want, strings.ReplaceAll(c.hint, "DIR", dir)
			if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), want) || fault.From(err).Hint != hint {
				t.Errorf("got %v\nhint %q\nwant %s\nhint %q", err, fault.From(err).Hint, want, hint)
			}
		})
	}
}

func TestMistakesOfTheDaemonsFile(t *testing.T) {
	home(t)
	for text, want := range map[string]string{
		"[daemon]\nlog_level = 'loud'\n":     `line 2: read "loud": it is no log level`,
		"[daemon]\nlog_level = 3\n":          "line 2: daemon.log_level must be text in quotes",
		"[daemon]\nboot_timeout = 60\n":      "line 2: daemon.boot_timeout must be text in quotes",
		"[daemon]\nboot_timeout = '0s'\n":    `line 2: read "0s": it is not a time span`,
		"[daemon]\nstop_timeout = 'a day'\n": `line 2: read "a day": it is not a time span`,
		"[daemon]\nmirro = 'x'\n":            `line 2: there is no key "daemon.mirro"`,
		"[[daemon]]\n":                       "line 1: cannot store an array table in a struct",
	} {
		path := filepath.Join(t.TempDir(), "system.toml")
		write(t, path, text)
		_, err := config.LoadDaemon(path)
		if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), `read configuration "`+path+`": `+want) || fault.From(err).Hint == "" {
			t.Errorf("%q: got %v\nwant %s", text, err, want)
		}
	}
	dir := t.TempDir()
	if _, err := config.LoadDaemon(dir); fault.CodeOf(err) != fault.Internal || fault.From(err).Subject != dir {
		t.Errorf("a directory: %v", err)
	}
}

func TestMistakesOfTheEnvironment(t *testing.T) {
	for _, c := range []struct{ name, value, want, hint string }{
		{"BANGER_VM_VCPU", "two", `read "two": it is not a whole number`, "write digits only, such as 4"},
		{"BANGER_VM_MEMORY", "512", `read size "512": it has no unit`, "write a number with a unit, such as 512M or 20G"},
		{"BANGER_VM_WORK_DISK", "8 gallons", `read size "8 gallons": the unit is unknown`, "write a number with a unit, such as 512M or 20G"},
		{"BANGER_VM_TIMEZONE", "Rome!", `read time zone "Rome!": it is not a time zone`, "write a name of the IANA database, such as UTC or Europe/Rome"},
		{"BANGER_LOG_LEVEL", "loud", `read "loud": it is no log level`, "choose debug, info, warn or error"},
		{"BANGER_METRICS_LISTEN", "0.0.0.0:9400", `read address "0.0.0.0:9400": it is no loopback address: this is for the host only`, "write one such as 127.0.0.1:9400, or [::1]:9400"},
		{"BANGER_METRICS_LISTEN", "[::ffff:192.0.2.1]:9400", `read address "[::ffff:192.0.2.1]:9400": it is no loopback address: this is for the host only`, "write one such as 127.0.0.1:9400, or [::1]:9400"},
		{"BANGER_METRICS_LISTEN", "localhost:9400", `read address "localhost:9400": it is no IP address with a port`, "write one such as 127.0.0.1:9400, or [::1]:9400"},
		{"BANGER_METRICS_LISTEN", "127.0.0.1:0", `read address "127.0.0.1:0": the port is missing`, "write one such as 127.0.0.1:9400, or [::1]:9400"},
		{"BANGER_BOOT_TIMEOUT", "60", `read "60": it is not a time span`, "write a number with a unit, such as 90s or 2m"},
		{"BANGER_STOP_TIMEOUT", "-3s", `read "-3s": it is not a time span`, "write a number with a unit, such as 90s or 2m"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			dir := home(t)
			t.Setenv(c.name, c.value)
			_, err := config.LoadDaemon(filepath.Join(dir, "none.toml"))
			want := `read environment "` + c.name + `": ` + c.want
			if !fault.Is(err, fault.Invalid) || err.Error() != want || fault.From(err).Hint != c.hint {
				t.Errorf("got %v\nhint %q\nwant %s\nhint %q", err, fault.From(err).Hint, want, c.hint)
			}
		})
	}
}

func TestEmptyVariableIsNone(t *testing.T) {
	dir := home(t)
	t.Setenv("BANGER_LOG_LEVEL", "")
	t.Setenv("BANGER_VM_VCPU", "")
	d, err := config.LoadDaemon(filepath.Join(dir, "none.toml"))
	if err != nil || d.LogLevel != config.Level(slog.LevelInfo) || d.VM.VCPU != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestProjectFileIsFoundUpToTheCheckoutsRoot(t *testing.T) {
	dir := home(t)
	write(t, filepath.Join(dir, "banger.toml"), "[vm]\nvcpu = 7\n")
	write(t, filepath.Join(dir, "checkout", ".git", "HEAD"), "")
	write(t, filepath.Join(dir, "checkout", "sub", "x"), "")
	t.Chdir(filepath.Join(dir, "checkout", "sub"))
	if c, err := config.LoadFrom(filepath.Join(dir, "none.toml"), ""); err != nil || c.VM.VCPU != 0 {
		t.Errorf("a file outside the checkout counted: %+v, %v", c, err)
	}
	write(t, filepath.Join(dir, "checkout", "banger.toml"), "[vm]\nvcpu = 5\n")
	if c, err := config.LoadFrom(filepath.Join(dir, "none.toml"), ""); err != nil || c.VM.VCPU != 5 {
		t.Errorf("the checkout's file did not count: %+v, %v", c, err)
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
		d.LogLevel != config.Level(slog.LevelDebug) || d.VM.Image != "debian:13" || d.VM.VCPU != 2 {
		t.Errorf("got %+v", d)
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

func TestAdmission(t *testing.T) {
	path := filepath.Join(home(t), "system.toml")
	for text, want := range map[string]config.Factor{"": 1, "[admission]\nmemory_overcommit = 1.5": 1.5, "[admission]\nmemory_overcommit = 2": 2} {
		write(t, path, text)
		if d, err := config.LoadDaemon(path); err != nil || d.Admission.MemoryOvercommit != want {
			t.Errorf("%q: %v, %v", text, d.Admission.MemoryOvercommit, err)
		}
	}
	for text, want := range map[string]string{
		"memory_overcommit = 0":     "out of range",
		"memory_overcommit = nan":   "out of range",
		"memory_overcommit = \"2\"": "admission.memory_overcommit must be a number",
	} {
		write(t, path, "[admission]\n"+text)
		if _, err := config.LoadDaemon(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"[user_quota.alice]\nvms = 1":    "user_quota.alice: it is no uid",
		"[user_quota.1000]\nmemory = 4":  "user_quota.1000.memory must be text in quotes",
		"[user_quota.1000]\nvms = \"1\"": "user_quota.1000.vms must be a whole number",
		"[user_quota.1000]\nvm = 1":      `there is no key "user_quota.1000.vm"`,
		"[user_quota]\nvms = 1":          "user_quota.vms must be a table",
	} {
		write(t, path, text)
		if _, err := config.LoadDaemon(path); err == nil || !strings.Contains(err.Error(), want) || fault.From(err).Hint == "" {
			t.Errorf("%q: %v", text, err)
		}
	}
	write(t, path, "[user_quota.1000]\nvms = 7\ndisk = \"1T\"\n[user_quota.0]")
	if d, err := config.LoadDaemon(path); err != nil || !maps.Equal(d.UserQuota, map[int]config.Quota{1000: {VMs: 7, Disk: config.Size(vm.TiB)}, 0: {}}) {
		t.Errorf("%+v, %v", d.UserQuota, err)
	}
	write(t, path, "[admission]\nlow_water = \"3G\"\n[quota]\nvms = 3\nmemory = \"4G\"")
	t.Setenv("BANGER_ADMISSION_MEMORY_OVERCOMMIT", "3.5")
	t.Setenv("BANGER_QUOTA_VMS", "5")
	d, err := config.LoadDaemon(path)
	if err != nil || d.Admission != (config.Admission{MemoryOvercommit: 3.5, LowWater: config.Size(3 * vm.GiB)}) || d.Quota != (config.Quota{VMs: 5, Memory: config.Size(4 * vm.GiB)}) {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestMetrics(t *testing.T) {
	dir := home(t)
	path := filepath.Join(dir, "system.toml")
	if d, err := config.LoadDaemon(path); err != nil || d.Metrics.IsValid() {
		t.Errorf("unasked: %v, %v", d.Metrics, err)
	}
	write(t, path, "[metrics]\nlisten = '[::1]:9400'\n")
	if d, err := config.LoadDaemon(path); err != nil || d.Metrics.String() != "[::1]:9400" {
		t.Errorf("%v, %v", d.Metrics, err)
	}
}

// TestTAPPool is 4 unless somebody says otherwise, and none where that is asked for.
func TestTAPPool(t *testing.T) {
	path := filepath.Join(home(t), "config.toml")
	for text, want := range map[string]int{"": 4, "tap_pool = 0": 0, "tap_pool = 100": 100} {
		write(t, path, "[daemon]\n"+text+"\n")
		if c, err := config.LoadDaemon(path); err != nil || c.TAPPool != want {
			t.Errorf("%q: %d, %v", text, c.TAPPool, err)
		}
	}
	for _, bad := range []string{"-1", "101"} {
		write(t, path, "[daemon]\ntap_pool = "+bad+"\n")
		if _, err := config.LoadDaemon(path); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "daemon.tap_pool: it is out of range: "+bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
