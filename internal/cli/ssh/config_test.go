package ssh_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/internal/cli/ssh"
	"banger/internal/fault"
)

func TestConfigText(t *testing.T) {
	c := ssh.Config{Program: "/opt/it's 5%/banger", Socket: "/run/a b/5%.sock", Key: "/home/a b/100%/key"}
	text, err := c.Text([]string{"dev", "old"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nHost dev.vm\nHost old.vm\nHost *.vm\n  User root\n",
		`  ProxyCommand '/opt/it'\''s 5%%/banger' --socket '/run/a b/5%%.sock' internal ssh-proxy '%n'` + "\n",
		// ssh expands nothing in the program.
		`  KnownHostsCommand "/opt/it's 5%/banger" "--socket" "/run/a b/5%%.sock" "internal" "known-hosts" %n` + "\n",
		`  IdentityFile "/home/a b/100%%/key"` + "\n",
		"  ProxyUseFdpass yes\n", "  StrictHostKeyChecking yes\n", "  UserKnownHostsFile /dev/null\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, bad := range []string{`/a"b`, `/a\b`, "/a\nProxyCommand evil", "/${HOME}", "/a\tb"} {
		for _, c := range []ssh.Config{{Program: bad}, {Socket: bad}, {Key: bad}} {
			if text, err := c.Text(nil); !fault.Is(err, fault.Invalid) || fault.From(err).Hint == "" {
				t.Errorf("%q: %v\n%s", bad, err, text)
			}
		}
	}
}

func TestRelist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ssh_config")
	names := func(names ...string) func() ([]string, error) {
		return func() ([]string, error) { return names, nil }
	}
	text := func(names ...string) string {
		text, err := ssh.Config{Program: "/banger", Socket: "/sock", Key: "/key"}.Text(names)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	relist := func(socket string, list func() ([]string, error), want string) {
		t.Helper()
		if err := ssh.Relist(t.Context(), path, socket, list); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	relist("/sock", names("dev"), "")
	if err := ssh.WriteConfig(path, text("old")); err != nil {
		t.Fatal(err)
	}
	relist("/sock", names("dev", "other"), text("dev", "other"))
	relist("/sock", names(), text())
	relist("/another", names("dev"), text())
	relist("/soc", names("dev"), text())

	// What was found out last is what stays.
	var g sync.WaitGroup
	var mu sync.Mutex
	var now []string
	for range 8 {
		g.Go(func() {
			err := ssh.Relist(t.Context(), path, "/sock", func() ([]string, error) {
				mu.Lock()
				defer mu.Unlock()
				now = append(now, "a"+strings.Repeat("a", len(now)))
				return now, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if got, _ := os.ReadFile(path); string(got) != text(now...) {
		t.Errorf("%s, want %s", got, text(now...))
	}
}

func TestCheckVersion(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for said, code := range map[string]fault.Code{
		"OpenSSH_9.2p1 Debian-2, OpenSSL 3": "", "OpenSSH_8.5p1": "", "OpenSSH_10.0p2": "", "another build": "",
		"OpenSSH_8.4p1 Debian-5": fault.Requirement, "OpenSSH_7.9p1": fault.Requirement,
	} {
		script := "#!/bin/sh\necho '" + said + "' >&2\n"
		if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := ssh.CheckVersion(t.Context()); fault.CodeOf(err) != code {
			t.Errorf("%s: %v", said, err)
		}
	}
}

// TestUserConfig puts the line in and takes it out: what was there is there again to the byte, and what was not is gone.
func TestUserConfig(t *testing.T) {
	read := func(home string) ssh.UserConfig {
		t.Helper()
		u, err := ssh.ReadUserConfig(home)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, before := range map[string]string{
		"ordinary": "Host *\n  User me\n", "empty": "", "no newline": "User me", "odd": "\xff\r\n\r\n# Include \"/x\"\n", "blank": "\n",
	} {
		home := t.TempDir()
		path := filepath.Join(home, ".ssh", "config")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"/data/a b/50%[x]/ssh_config", "/moved/ssh_config"} {
			is, err := read(home).Including(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := is.Write(); err != nil {
				t.Fatal(err)
			}
			if again, err := read(home).Including(file); err != nil || !again.Same(read(home)) {
				t.Errorf("%s: a second time changes something (%v)", name, err)
			}
		}
		if got, _ := os.ReadFile(path); string(got) != "Include \"/moved/ssh_config\" #banger:ssh-config\n"+before {
			t.Errorf("%s: %q", name, got)
		}
		if err := read(home).Without().Write(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != before {
			t.Errorf("%s: %q, want %q (%v)", name, got, before, err)
		}
	}
}

func TestUserConfigThatWasMade(t *testing.T) {
	home := t.TempDir()
	was, err := ssh.ReadUserConfig(home)
	if err != nil {
		t.Fatal(err)
	}
	is, err := was.Including("/data/ssh_config")
	if err != nil {
		t.Fatal(err)
	}
	if err := is.Write(); err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(home, ".ssh", "known_hosts")
	if err := os.WriteFile(known, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	now, err := ssh.ReadUserConfig(home)
	if err != nil {
		t.Fatal(err)
	}
	if err := now.Without().Write(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(home, ".ssh", "config")); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
	if _, err := os.Stat(known); err != nil {
		t.Errorf("what ssh has put there meanwhile is gone: %v", err)
	}
	if _, err := now.Including("/a\nb"); !fault.Is(err, fault.Invalid) {
		t.Errorf("err = %v", err)
	}
}
