package sshserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// maxFile bounds a file that is read, in bytes. They are the guest's.
const maxFile = 1 << 20

// errUnknown does not tell an account that there is not from a key that it does not let in.
var errUnknown = errors.New("the key is not among the authorized keys")

// hostKey is the one that the daemon gave the guest, and that its own sshd shows.
func (s *Server) hostKey() (ssh.Signer, error) {
	const name = "etc/ssh/ssh_host_ed25519_key"
	text, err := readFile(filepath.Join(s.Root, name))
	if err != nil {
		return nil, fmt.Errorf("read the host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("read the host key /%s: %w", name, err)
	}
	return key, nil
}

// authorize lets in whoever has one of the account's keys. A key that has options is passed over: nothing here would
// hold who comes in with it to them.
func (s *Server) authorize(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	who, err := s.account(c.User())
	if err != nil {
		return nil, errUnknown
	}
	rest, err := readFile(filepath.Join(s.Root, who.home, ".ssh", "authorized_keys"))
	if err != nil {
		return nil, errUnknown
	}
	for {
		known, _, options, after, err := ssh.ParseAuthorizedKey(rest)
		if err != nil { // there is no further one
			return nil, errUnknown
		}
		rest = after
		if len(options) == 0 && bytes.Equal(known.Marshal(), key.Marshal()) {
			return &ssh.Permissions{}, nil
		}
	}
}

// readFile returns the content of a regular file. It waits for nobody: there may be a pipe in its place.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b, err
}
