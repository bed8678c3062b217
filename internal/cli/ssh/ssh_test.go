package ssh_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/cli/exit"
	"banger/internal/cli/ssh"
	"banger/internal/cli/term"
	"banger/internal/cli/userkey"
	"banger/internal/fault"
)

func TestArgs(t *testing.T) {
	s := ssh.Session{
		VM: "0123456789ab", Key: "/home/a b/100%/key", KnownHosts: "/cache/0123456789ab",
		Proxy:   []string{"/opt/it's 5%/banger", "internal", "ssh-proxy", "0123456789ab"},
		Options: []string{"StrictHostKeyChecking=no", "ForwardAgent=yes"},
		Command: []string{"sh", "-c", "echo hi"}, TTY: true,
	}
	got := s.Args()
	for _, want := range []string{
		`ProxyCommand '/opt/it'\''s 5%%/banger' internal ssh-proxy 0123456789ab`,
		`IdentityFile "/home/a b/100%%/key"`,
		`HostKeyAlias 0123456789ab`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if slices.Index(got, "StrictHostKeyChecking yes") > slices.Index(got, "StrictHostKeyChecking=no") {
		t.Error("a user's option stands before ours, and ssh takes the first")
	}
	tail := []string{"-o", "ForwardAgent=yes", "-t", "--", "0123456789ab", "sh -c 'echo hi'"}
	if diff := cmp.Diff(tail, got[len(got)-len(tail):]); diff != "" {
		t.Error(diff)
	}
}

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		in   []string
		want string
	}{
		{[]string{"ls | wc -l"}, "ls | wc -l"},
		{[]string{"echo", ""}, "echo ''"},
		{[]string{"echo", "$HOME", "it's"}, `echo '$HOME' 'it'\''s'`},
		{[]string{"uname", "-a"}, "uname -a"},
	} {
		if got := ssh.CommandLine(tc.in); got != tc.want {
			t.Errorf("CommandLine(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}

// TestRun runs a stand-in for ssh that shows what the file of known hosts holds and ends as told.
func TestRun(t *testing.T) {
	bin, cache := t.TempDir(), filepath.Join(t.TempDir(), "known_hosts")
	script := "#!/bin/sh\ncat " + cache + "/0123456789ab\nshift $(($# - 1))\neval \"$1\"\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	key, err := userkey.Ensure(filepath.Join(t.TempDir(), "k"))
	if err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]int{"true": 0, "exit 42": 42, "kill -TERM $$": 143} {
		var out bytes.Buffer
		s := ssh.Session{VM: "0123456789ab", HostKey: key.Public, KnownHosts: filepath.Join(cache, "0123456789ab"), Command: []string{command}}
		err := s.Run(t.Context(), &term.IO{In: strings.NewReader(""), Out: &out, Err: &out})
		if got := exit.Of(err); got != want {
			t.Errorf("%s: status %d (%v), want %d", command, got, err, want)
		}
		if got := out.String(); got != "0123456789ab "+strings.TrimSuffix(key.Public, " banger")+"\n" {
			t.Errorf("known hosts: %q", got)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	s := ssh.Session{VM: "0123456789ab", HostKey: "evil\n* ssh-ed25519", KnownHosts: filepath.Join(t.TempDir(), "k")}
	streams := &term.IO{}
	if _, err := ssh.Find(); err != nil {
		t.Fatalf("the tests need an ssh program: %v", err)
	}
	if err := s.Run(t.Context(), streams); !fault.Is(err, fault.Corrupt) {
		t.Errorf("err = %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	err := s.Run(t.Context(), streams)
	if !fault.Is(err, fault.Requirement) || !strings.Contains(fault.From(err).Hint, "openssh-client") {
		t.Errorf("err = %v", err)
	}
	if errors.Is(err, exit.Status(0)) {
		t.Error("a missing ssh looks like success")
	}
}
