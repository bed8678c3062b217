// Package sshkey makes ed25519 key pairs in OpenSSH's formats and checks public keys.
package sshkey

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger/internal/fault"
)

// Pair is one key pair.
type Pair struct {
	Public  string // authorized_keys form, one line, no newline
	Private string // OpenSSH PEM, no passphrase
}

// New makes an ed25519 pair. The comment must be a single line.
func New(comment string) (Pair, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return Pair{}, fmt.Errorf("encode ssh key: %w", err)
	}
	sp, err := ssh.NewPublicKey(pub)
	if err != nil {
		return Pair{}, fmt.Errorf("encode ssh key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sp)))
	if comment != "" {
		line += " " + comment
	}
	return Pair{Public: line, Private: string(pem.EncodeToMemory(block))}, nil
}

// maxPublic bounds an authorized_keys line: a 16384-bit RSA key has about 2,800 bytes.
const maxPublic = 8 << 10

// CheckPublic reports why a line cannot stand in authorized_keys, or nil. Options before the key are
// refused: what a key may do in a guest is its owner's to say inside the guest.
func CheckPublic(line string) error {
	bad := func(msg string) error {
		return fault.New(fault.Invalid, "%s", msg).WithOp("read public key", clip(line)).
			WithHint("give the content of a file such as id_ed25519.pub")
	}
	if len(line) > maxPublic {
		return bad("it is too long")
	}
	if strings.ContainsAny(line, "\r\n\x00") {
		return bad("it has more than one line")
	}
	_, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return bad("it is not a public key")
	case len(options) > 0:
		return bad("it has options before the key")
	case len(bytes.TrimSpace(rest)) > 0:
		return bad("it has more than one key")
	}
	return nil
}

// Same reports whether two authorized_keys lines hold the same key, whatever their comments.
func Same(a, b string) bool {
	ka, _, _, _, errA := ssh.ParseAuthorizedKey([]byte(a))
	kb, _, _, _, errB := ssh.ParseAuthorizedKey([]byte(b))
	return errA == nil && errB == nil && bytes.Equal(ka.Marshal(), kb.Marshal())
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
