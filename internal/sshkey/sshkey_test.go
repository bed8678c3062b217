package sshkey_test

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger/internal/sshkey"
)

func TestNewMakesAPairThatBelongsTogether(t *testing.T) {
	p, err := sshkey.New("banger dev")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey([]byte(p.Private))
	if err != nil {
		t.Fatal(err)
	}
	if !sshkey.Same(p.Public, string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) {
		t.Errorf("public key %q is not the private key's", p.Public)
	}
	if !strings.HasPrefix(p.Public, "ssh-ed25519 ") || !strings.HasSuffix(p.Public, " banger dev") {
		t.Errorf("public line is %q", p.Public)
	}
	if err := sshkey.CheckPublic(p.Public); err != nil {
		t.Error(err)
	}
}

func TestCheckPublic(t *testing.T) {
	p, err := sshkey.New("")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, line, want string }{
		{"empty", "", "not a public key"},
		{"words", "hello there", "not a public key"},
		{"two lines", p.Public + "\n" + p.Public, "more than one line"},
		{"options", `command="rm" ` + p.Public, "options before the key"},
		{"long", strings.Repeat("a", 9000), "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := sshkey.CheckPublic(c.line)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}
