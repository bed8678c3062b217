package settings_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/agent/settings"
	"banger/internal/agentproto"
)

// write applies cfg to dir.
func write(t *testing.T, dir string, cfg agentproto.GuestConfig) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return settings.Write(root, cfg)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree prints all files below dir, with mode and content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		body := ""
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			body = strings.ReplaceAll(string(b), "\n", "|")
		case fi.Mode()&fs.ModeSymlink != 0:
			body, _ = os.Readlink(path)
		}
		lines = append(lines, fi.Mode().String()+" "+rel+" "+body)
		return nil
	}))
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

func config() agentproto.GuestConfig {
	return agentproto.GuestConfig{
		Hostname:       "dev",
		MachineID:      "0123456789abcdef0123456789abcdef",
		Network:        &agentproto.Network{DNS: []string{"10.0.0.1", "fd00::1"}},
		Timezone:       "Europe/Rome",
		Locale:         "C.UTF-8",
		AuthorizedKeys: []string{"ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"},
		Files:          []agentproto.File{{Path: "/etc/ssh/host_key", Mode: 0o600, Content: []byte("secret\n")}},
	}
}

func TestWriteIntoAnEmptyTree(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "usr/share/zoneinfo/Europe"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "usr/share/zoneinfo/Europe/Rome"), nil, 0o644))
	must(t, os.MkdirAll(filepath.Join(dir, "usr/lib/systemd"), 0o755))
	const want = `-r--r--r-- etc/machine-id 0123456789abcdef0123456789abcdef|
-rw------- etc/ssh/host_key secret|
-rw------- root/.ssh/authorized_keys # banger: begin (rewritten at every boot)|ssh-ed25519 AAAA a|ssh-ed25519 BBBB b|# banger: end|
-rw-r--r-- etc/hostname dev|
-rw-r--r-- etc/hosts 127.0.0.1	localhost|::1	localhost|# banger: begin (rewritten at every boot)|127.0.1.1	dev|# banger: end|
-rw-r--r-- etc/locale.conf LANG=C.UTF-8|
-rw-r--r-- etc/resolv.conf nameserver 10.0.0.1|nameserver fd00::1|
-rw-r--r-- etc/timezone Europe/Rome|
-rw-r--r-- usr/share/zoneinfo/Europe/Rome 
-rw-r--r-- var/lib/banger-agent/locale C.UTF-8|
-rw-r--r-- var/lib/banger-agent/timezone Europe/Rome|
Lrwxrwxrwx etc/localtime ../usr/share/zoneinfo/Europe/Rome
`
	for _, boot := range []string{"first", "second"} {
		must(t, write(t, dir, config()))
		if d := cmp.Diff(want, tree(t, dir)); d != "" {
			t.Errorf("%s boot: %s", boot, d)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "root/.ssh")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("root/.ssh: %v, %v", fi, err)
	}
}

func TestUnchangedFilesAreNotWritten(t *testing.T) {
	dir := t.TempDir()
	cfg := agentproto.GuestConfig{Hostname: "dev", AuthorizedKeys: []string{"k"}}
	must(t, write(t, dir, cfg))
	inode := func(name string) uint64 {
		fi, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		return fi.Sys().(*syscall.Stat_t).Ino
	}
	names := []string{"etc/hostname", "etc/hosts", "root/.ssh/authorized_keys"}
	before := make(map[string]uint64)
	for _, n := range names {
		before[n] = inode(n)
	}
	must(t, write(t, dir, cfg))
	for _, n := range names {
		if inode(n) != before[n] {
			t.Errorf("%s was written again", n)
		}
	}
}

func TestTheUsersLinesStay(t *testing.T) {
	const begin, end = "# banger: begin (rewritten at every boot)\n", "# banger: end\n"
	tests := []struct{ name, old, want string }{
		{"no block yet", "mine\n", "mine\n" + begin + "new\n" + end},
		{"no newline at the end", "mine", "mine\n" + begin + "new\n" + end},
		{"a block in the middle", "a\n" + begin + "old\nolder\n" + end + "b\n", "a\n" + begin + "new\n" + end + "b\n"},
		{"a block without its end", "a\n" + begin + "mine\n", "a\n" + begin + "new\n" + end + "mine\n"},
		{"an end without a block", "a\n" + end, "a\n" + end + begin + "new\n" + end},
		{"line ends of another system", "a\r\n# banger: begin (rewritten at every boot)\r\nold\r\n# banger: end\r\nb\r\n", "a\r\n" + begin + "new\n" + end + "b\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "root/.ssh"), 0o700))
			file := filepath.Join(dir, "root/.ssh/authorized_keys")
			must(t, os.WriteFile(file, []byte(tt.old), 0o640))
			must(t, write(t, dir, agentproto.GuestConfig{AuthorizedKeys: []string{"new"}}))
			got, err := os.ReadFile(file)
			must(t, err)
			if d := cmp.Diff(tt.want, string(got)); d != "" {
				t.Error(d)
			}
			if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, error %v", fi.Mode(), err)
			}
		})
	}
}

// A root file system may hold anything; nothing outside it is touched, and the rest is still written.
func TestAHostileTree(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	must(t, os.WriteFile(victim, []byte("safe\n"), 0o600))
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	must(t, os.Symlink(victim, filepath.Join(dir, "etc/hostname")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "etc/hosts"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "etc/ssh")))
	must(t, os.WriteFile(filepath.Join(dir, "root"), nil, 0o600))
	cfg := config()
	cfg.Timezone, cfg.Locale, cfg.Network = "../../../etc/shadow", "", nil
	must(t, os.MkdirAll(filepath.Join(dir, "usr/share/zoneinfo"), 0o755))
	cfg.Files = append(cfg.Files, agentproto.File{Path: "/../../motd", Mode: 0o4644, Content: []byte("hi")})

	err := write(t, dir, cfg)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"/etc/hosts is not a regular file",
		"timezone ../../../etc/shadow: ",
		"etc/ssh: path escapes from parent",
		"openat root: not a directory",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if got, _ := os.ReadFile(victim); string(got) != "safe\n" {
		t.Errorf("the victim holds %q", got)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside: %v", entries)
	}
	const want = `-r--r--r-- etc/machine-id 0123456789abcdef0123456789abcdef|
-rw------- root 
-rw-r--r-- etc/hostname dev|
-rw-r--r-- motd hi
Lrwxrwxrwx etc/ssh OUTSIDE
prw------- etc/hosts 
`
	if d := cmp.Diff(want, strings.ReplaceAll(tree(t, dir), outside, "OUTSIDE")); d != "" {
		t.Error(d)
	}
}

// A guest's own resolver keeps its link and is told the servers. Links that lead to nothing that answers do not stay.
func TestResolver(t *testing.T) {
	const (
		dropIn = "etc/systemd/resolved.conf.d/banger.conf"
		file   = "search vm|nameserver 10.0.0.1|"
		told   = "[Resolve]|DNS=10.0.0.1|Domains=vm|"
	)
	const sysinit, multiUser = "etc/systemd/system/sysinit.target.wants/systemd-resolved.service", "etc/systemd/system/multi-user.target.wants/systemd-resolved.service"
	for name, c := range map[string]struct {
		link, unit string
		want       map[string]string
	}{
		"a file":                    {unit: sysinit, want: map[string]string{"etc/resolv.conf": file}},
		"resolved's stub":           {"../run/systemd/resolve/stub-resolv.conf", sysinit, map[string]string{"etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf", dropIn: told}},
		"resolved's, absolute":      {"/run/systemd/resolve/resolv.conf", multiUser, map[string]string{"etc/resolv.conf": "/run/systemd/resolve/resolv.conf", dropIn: told}},
		"its own copy":              {"../usr/lib/systemd/resolv.conf", sysinit, map[string]string{"etc/resolv.conf": "../usr/lib/systemd/resolv.conf", dropIn: told}},
		"resolved, never started":   {"../run/systemd/resolve/stub-resolv.conf", "", map[string]string{"etc/resolv.conf": file}},
		"another program's":         {"../run/resolvconf/resolv.conf", sysinit, map[string]string{"etc/resolv.conf": file}},
		"out of the tree":           {"../../../../../run/systemd/resolve/../../secret", sysinit, map[string]string{"etc/resolv.conf": file}},
		"out of the tree, absolute": {"/etc/shadow", sysinit, map[string]string{"etc/resolv.conf": file}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "etc"), 0o755))
			if c.link != "" {
				must(t, os.Symlink(c.link, filepath.Join(dir, "etc/resolv.conf")))
			}
			if c.unit != "" {
				must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(c.unit)), 0o755))
				must(t, os.Symlink("/usr/lib/systemd/system/systemd-resolved.service", filepath.Join(dir, c.unit)))
			}
			cfg := agentproto.GuestConfig{Network: &agentproto.Network{DNS: []string{"10.0.0.1"}, Search: []string{"vm"}}}
			for range 2 {
				must(t, write(t, dir, cfg))
				got := map[string]string{}
				for line := range strings.Lines(tree(t, dir)) {
					if f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3); f[1] != c.unit {
						got[f[1]] = f[2]
					}
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Error(d)
				}
			}
			if c.want[dropIn] == "" {
				return
			}
			must(t, os.Remove(filepath.Join(dir, "etc/resolv.conf"))) // its user wants it no more
			must(t, write(t, dir, cfg))
			if text := tree(t, dir); !strings.Contains(text, "etc/resolv.conf "+file) || strings.Contains(text, dropIn) {
				t.Errorf("without its link: %s", text)
			}
		})
	}
}

// A guest that runs becomes another one: nothing of what it was stays but its users' own lines.
func TestAnotherIdentityReplacesTheFirst(t *testing.T) {
	dir := t.TempDir()
	of := func(name string) agentproto.GuestConfig {
		return agentproto.GuestConfig{
			Hostname: name, MachineID: strings.Repeat(name[:1], 32), Network: &agentproto.Network{DNS: []string{"192.0.2." + name[1:]}},
			AuthorizedKeys: []string{"ssh-ed25519 key-of-" + name},
			Files:          []agentproto.File{{Path: "/etc/ssh/ssh_host_ed25519_key", Mode: 0o600, Content: []byte("host key of " + name)}},
		}
	}
	must(t, write(t, dir, of("a1")))
	keys := filepath.Join(dir, "root/.ssh/authorized_keys")
	old, err := os.ReadFile(keys)
	must(t, err)
	must(t, os.WriteFile(keys, append(old, "ssh-ed25519 mine\n"...), 0o600))
	must(t, write(t, dir, of("b2")))

	fresh := t.TempDir()
	must(t, write(t, fresh, of("b2")))
	want, err := os.ReadFile(filepath.Join(fresh, "root/.ssh/authorized_keys"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(fresh, "root/.ssh/authorized_keys"), append(want, "ssh-ed25519 mine\n"...), 0o600))
	if d := cmp.Diff(tree(t, fresh), tree(t, dir)); d != "" {
		t.Error(d)
	}
}

// Who was let in is let in no more; what is not ours stays.
func TestNoKeysTakeTheKeysAway(t *testing.T) {
	dir := t.TempDir()
	must(t, write(t, dir, agentproto.GuestConfig{}))
	keys := filepath.Join(dir, "root/.ssh/authorized_keys")
	if _, err := os.Lstat(keys); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file for no keys: %v", err)
	}
	must(t, write(t, dir, agentproto.GuestConfig{AuthorizedKeys: []string{"ssh-ed25519 template"}}))
	old, err := os.ReadFile(keys)
	must(t, err)
	must(t, os.WriteFile(keys, append([]byte("ssh-ed25519 before\n"), append(old, "ssh-ed25519 after\n"...)...), 0o600))
	must(t, write(t, dir, agentproto.GuestConfig{}))
	if got, err := os.ReadFile(keys); err != nil || string(got) != "ssh-ed25519 before\nssh-ed25519 after\n" {
		t.Errorf("left is %q, %v", got, err)
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "run/ours"), 0o755)) // somebody was there first
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	for _, content := range []string{"one", "two"} {
		must(t, settings.Secret(root, "run/ours/secret", content))
	}
	for name, want := range map[string]fs.FileMode{"run/ours": 0o700, "run/ours/secret": 0o600} {
		if fi, err := root.Stat(name); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if got, err := root.ReadFile("run/ours/secret"); err != nil || string(got) != "two" {
		t.Errorf("%q, %v", got, err)
	}
}
