// Package ssh reaches a VM with the system's ssh program: through the daemon and the agent instead of
// a route, and with the one host key that the daemon gave the VM.
package ssh

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/cli/exit"
	"banger/internal/cli/term"
	"banger/internal/fault"
	"banger/internal/vm"
)

// Session is one run of ssh.
type Session struct {
	VM         vm.ID
	HostKey    string   // public, authorized_keys form
	Key        string   // path of the user's private key
	KnownHosts string   // path of a file that is ours, one for each VM; written by Run
	Proxy      []string // argv of the program that hands ssh a connection to the guest's SSH server
	TTY        bool     // ask for a terminal even though there is a command
	Options    []string // the user's own, KEY=VALUE; they cannot weaken ours
	Command    []string // empty for a login shell
}

// options are what ssh_config says of a login that is let in by one key and knows the host's key, however it comes to
// know that. Of options given twice ssh takes the first.
func options(key string) []string {
	return []string{
		"ProxyUseFdpass yes",
		"IdentityFile " + configQuote(key),
		"IdentitiesOnly yes",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"GlobalKnownHostsFile /dev/null",
		"StrictHostKeyChecking yes",
		"HostKeyAlgorithms " + ssh.KeyAlgoED25519,
		// It never leaves the host, so nobody can keep it for a quantum computer: what is quickest will do.
		"KexAlgorithms " + strings.Join([]string{ssh.KeyExchangeCurve25519, "curve25519-sha256@libssh.org", ssh.KeyExchangeECDHP256, ssh.KeyExchangeDH14SHA256}, ","),
		"UpdateHostKeys no",
		"CheckHostIP no",
	}
}

// Args returns ssh's arguments. The user's ssh_config is left out on purpose: a `Host *` block with a
// ProxyJump, a ControlPath or a RemoteCommand would break the way in, and what does fit can be given
// as an option. Ours stand before the user's.
func (s Session) Args() []string {
	args := []string{"-F", "/dev/null", "-l", "root"}
	for _, o := range append(options(s.Key),
		"ProxyCommand "+proxyCommand(s.Proxy),
		"UserKnownHostsFile "+configQuote(s.KnownHosts),
		"HostKeyAlias "+string(s.VM),
		"LogLevel ERROR", // errors show; notes about known hosts and closed connections do not
	) {
		args = append(args, "-o", o)
	}
	for _, o := range s.Options {
		args = append(args, "-o", o)
	}
	if s.TTY {
		args = append(args, "-t")
	}
	args = append(args, "--", string(s.VM))
	if len(s.Command) > 0 {
		args = append(args, CommandLine(s.Command))
	}
	return args
}

// Run runs ssh on the command's own streams and returns its exit status as an exit.Status.
func (s Session) Run(ctx context.Context, streams *term.IO) error {
	program, err := Find()
	if err != nil {
		return err
	}
	if err := s.writeKnownHosts(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, s.Args()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.In, streams.Out, streams.Err
	// A terminal's Ctrl-C reaches ssh by itself; this is for a signal sent to us alone.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws, ok := ended.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return exit.Status(128 + int(ws.Signal()))
		}
		return exit.Status(ended.ExitCode())
	}
	if err != nil {
		return fault.New(fault.Internal, "%w", err).WithOp("run", program)
	}
	return nil
}

// Find returns the path of the ssh program.
func Find() (string, error) {
	path, err := exec.LookPath("ssh")
	if err != nil {
		return "", fault.New(fault.Requirement, "the program is not installed: %w", err).WithOp("run", "ssh").
			WithHint("sudo apt install openssh-client")
	}
	return path, nil
}

// writeKnownHosts replaces the file whole, so that an ssh that reads it meanwhile sees one key.
func (s Session) writeKnownHosts() error {
	key, err := hostKey(s.HostKey)
	if err != nil || !s.VM.Valid() {
		return noHostKey(string(s.VM))
	}
	if err := replace(s.KnownHosts, []byte(string(s.VM)+" "+key), 0o600); err != nil {
		return fault.New(fault.Internal, "%w", err).WithOp("write known hosts", s.KnownHosts).
			WithHint("check that %s can be written", filepath.Dir(s.KnownHosts))
	}
	return nil
}

// KnownHost is the line for a KnownHostsCommand: whatever name ssh came by, the key is this one.
func KnownHost(name, key string) (string, error) {
	line, err := hostKey(key)
	if err != nil {
		return "", noHostKey(name)
	}
	return "* " + line, nil
}

// hostKey is a public key as a line of known hosts has it, behind the name.
func hostKey(public string) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil {
		return "", err
	}
	return string(ssh.MarshalAuthorizedKey(key)), nil
}

func noHostKey(name string) error {
	return fault.New(fault.Corrupt, "the daemon gave no usable host key").WithOp("connect to VM", name).
		WithHint("restart the VM; it gets its host key at boot")
}

// replace writes a file whole, so that no reader sees half of it, nor does a host that loses its power. Its directory is made
// where there is none.
func replace(path string, content []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".banger-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// CommandLine turns what was typed after -- into the line that the guest's shell gets. One argument
// is a line already; several are an argument vector that must arrive as it is.
func CommandLine(command []string) string {
	if len(command) == 1 {
		return command[0]
	}
	quoted := make([]string, len(command))
	for i, a := range command {
		quoted[i] = shellQuote(a)
	}
	return strings.Join(quoted, " ")
}

// proxyCommand writes argv for the user's shell, to which ssh gives it, behind an exec of its own, after
// expanding % tokens.
func proxyCommand(argv []string) string {
	return strings.ReplaceAll(CommandLine(argv), "%", "%%")
}

func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@,+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// configQuote writes a path as ssh_config wants it.
func configQuote(path string) string {
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`
}
