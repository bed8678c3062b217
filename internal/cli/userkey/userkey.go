// Package userkey finds or makes the key with which a user logs in to their VMs.
package userkey

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger/internal/fault"
	"banger/internal/sshkey"
)

// comment marks the keys that banger made.
const comment = "banger"

// Key is a key pair on this machine.
type Key struct {
	Path   string // of the private half
	Public string // authorized_keys form, with a comment, no newline
}

// In returns whether one of the authorized_keys lines is this key, comments aside.
func (k Key) In(lines []string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return sshkey.Same(l, k.Public) })
}

// Load reads the pair that the user configured: path is the private half, path.pub the public one.
// The private half is not opened here, for it may live in an agent or on a token.
func Load(path string) (Key, error) {
	pub, err := os.ReadFile(path + ".pub")
	if err != nil {
		return Key{}, fault.New(fault.Invalid, "its public half cannot be read: %w", err).WithOp("use SSH key", path).
			WithHint("set ssh_key to a private key that has its .pub file beside it: `ssh-keygen -y -f %s > %s.pub` makes one", path, path)
	}
	key, note, _, _, err := ssh.ParseAuthorizedKey(pub)
	if err != nil {
		return Key{}, fault.New(fault.Invalid, "%s.pub does not hold a public key", path).WithOp("use SSH key", path).
			WithHint("`ssh-keygen -y -f %s > %s.pub` makes it anew", path, path)
	}
	return Key{Path: path, Public: line(key, note)}, nil
}

// Ensure returns the ed25519 pair at path, making it and its directory when absent. Two processes
// that race end with the same pair: the private half is linked into place only if nothing is there,
// and the public half is always derived from it.
func Ensure(path string) (Key, error) {
	failed := func(err error) (Key, error) {
		return Key{}, fault.New(fault.Internal, "%w", err).WithOp("make SSH key", path).
			WithHint("check that %s can be written, or set ssh_key to a key of your own", filepath.Dir(path))
	}
	private, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return failed(err)
		}
		private, err = os.ReadFile(path)
	}
	if err != nil {
		return failed(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return Key{}, fault.New(fault.Corrupt, "it is not an unencrypted private key: %w", err).WithOp("use SSH key", path).
			WithHint("move it away and banger makes a new one, which VMs made before will not know")
	}
	return Key{Path: path, Public: line(signer.PublicKey(), comment)}, nil
}

func create(path string) error {
	pair, err := sshkey.New(comment)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".id_ed25519-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := f.WriteString(pair.Private); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func line(key ssh.PublicKey, note string) string {
	return strings.TrimSpace(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + note)
}
