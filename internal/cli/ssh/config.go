package ssh

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

// Suffix is what a VM's name has as a host's.
const Suffix = ".vm"

// Config is a part of ssh_config with which every ssh reaches VMs by <name>.vm.
type Config struct {
	Program string // path of banger
	Socket  string // path of the daemon's
	Key     string // path of the user's private key
}

// The parts of the text. What stands between them is a line for each VM, for tools that list hosts and pass over patterns.
const (
	title   = "# Written by `banger ssh-config install`; commands that make, rename or delete VMs keep the list in it.\n"
	daemon  = "# Daemon: "
	pattern = "Host *" + Suffix + "\n"
)

// Text is the whole file. One block serves every VM, also one that is not listed.
func (c Config) Text(names []string) (string, error) {
	for _, path := range []string{c.Program, c.Socket, c.Key} {
		if err := checkPath(path); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	b.WriteString(title + daemon + c.Socket + "\n" + list(names) + pattern)
	// ssh puts %n in whatever it is asked for, so it is quoted: not all versions refuse names that mean something to a shell.
	for _, o := range append([]string{
		"User root",
		"ProxyCommand " + proxyCommand(c.call("ssh-proxy")) + " '%n'",
		"KnownHostsCommand " + knownHostsCommand(c.call("known-hosts")) + " %n",
		"UserKnownHostsFile /dev/null",
	}, options(c.Key)...) {
		b.WriteString("  " + o + "\n")
	}
	return b.String(), nil
}

func (c Config) call(command string) []string {
	return []string{c.Program, "--socket", c.Socket, "internal", command}
}

func list(names []string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString("Host " + name + Suffix + "\n")
	}
	return b.String()
}

// knownHostsCommand writes argv as ssh splits it: without a shell, and with % tokens in all but the program.
func knownHostsCommand(argv []string) string {
	quoted := []string{`"` + argv[0] + `"`}
	for _, arg := range argv[1:] {
		quoted = append(quoted, configQuote(arg))
	}
	return strings.Join(quoted, " ")
}

// checkPath refuses what not every version of ssh can be told in quotes: a file that ssh cannot read keeps the user from
// every host.
func checkPath(path string) error {
	if strings.ContainsAny(path, "\"\\") || strings.Contains(path, "${") || strings.ContainsFunc(path, unicode.IsControl) {
		return fault.New(fault.Invalid, "its path cannot be written in an ssh_config").WithOp("use", path).
			WithHint("move it to where no directory has a quote, a backslash, ${ or a control character in its name")
	}
	return nil
}

// Serves reports whether the file at path is one of ours, for the daemon behind a socket.
func Serves(path, socket string) bool {
	text, err := os.ReadFile(path)
	return err == nil && serves(text, socket)
}

func serves(text []byte, socket string) bool {
	return bytes.HasPrefix(text, []byte(title+daemon+socket+"\n"))
}

// Relist makes the list in the file at path that of the VMs there are, and leaves the rest as it was installed. It does nothing
// where there is no such file, or one for another daemon. Of several at once none undoes what another learned later.
func Relist(ctx context.Context, path, socket string, names func() ([]string, error)) error {
	if !Serves(path, socket) {
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := lock(ctx, dir); err != nil {
		return err
	}
	now, err := names()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, block, whole := strings.Cut(string(text), pattern)
	fresh := title + daemon + socket + "\n" + list(now) + pattern + block
	if !whole || !serves(text, socket) || fresh == string(text) {
		return nil
	}
	return replace(path, []byte(fresh), 0o600)
}

// lock waits for its turn no longer than ctx: who has it may have been stopped by its user.
func lock(ctx context.Context, dir *os.File) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll.C:
		}
	}
}

// CheckVersion refuses an ssh without KnownHostsCommand, of which it would complain whatever the host.
func CheckVersion(ctx context.Context) error {
	program, err := Find()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, program, "-V").CombinedOutput()
	if err != nil {
		return fault.New(fault.Internal, "%w", err).WithOp("run", program).WithHint("see what `%s -V` says", program)
	}
	version := regexp.MustCompile(`OpenSSH_(\d+)\.(\d+)`).FindSubmatch(out)
	if version == nil {
		return nil // somebody's own build; it is for them to know
	}
	major, _ := strconv.Atoi(string(version[1])) // digits
	minor, _ := strconv.Atoi(string(version[2]))
	if major < 8 || major == 8 && minor < 5 {
		return fault.New(fault.Requirement, "%s is too old: 8.5 is the first that asks for host keys", version[0]).WithOp("use", program).
			WithHint("get a newer openssh-client, or use `banger vm ssh`, which every version can")
	}
	return nil
}

// WriteConfig puts our file at path.
func WriteConfig(path, text string) error {
	if err := replace(path, []byte(text), 0o600); err != nil {
		return fault.New(fault.Forbidden, "%w", err).WithOp("write", path).WithHint("check that %s can be written", filepath.Dir(path))
	}
	return nil
}
