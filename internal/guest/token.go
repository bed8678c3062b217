package guest

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// fileToken, in the hypervisor's working directory, holds what the resident agent proves itself with,
// for a daemon that comes back.
const fileToken = "agent.token"

// tokenChars is the length of a token: what rand.Text returns.
const tokenChars = 26

// makeToken draws a token for a guest that is about to boot. It is not synced: a guest does not survive
// what a page cache does not.
func makeToken(dir *os.File) (string, error) {
	path := socketPath(dir, fileToken)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// The directory is the hypervisor's too: whatever lies there is not written through.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	token := rand.Text()
	_, err = f.WriteString(token)
	return token, errors.Join(err, f.Close())
}

// readToken returns the token of a guest that has booted already. With "" no resident agent is known.
func readToken(dir *os.File) (string, error) {
	f, err := os.OpenFile(socketPath(dir, fileToken), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	token, err := io.ReadAll(io.LimitReader(f, tokenChars))
	return string(token), err
}

// knows reports whether a Hello's token is the guest's.
func (g *Guest) knows(token string) bool {
	return len(g.token) == tokenChars && subtle.ConstantTimeCompare([]byte(token), []byte(g.token)) == 1
}
