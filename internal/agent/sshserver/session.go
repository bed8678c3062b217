package sshserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// maxSent bounds how many variables a client sends.
const maxSent = 128

// session is one channel in which a shell, a command or a subsystem runs. Its requests are served one by one.
type session struct {
	*conn
	channel ssh.Channel
	sent    []string // variables of the client's
	lends   bool     // the client lets its keys be used
	term    *terminal
	cmd     *exec.Cmd    // nil until the client has said what is to run
	failed  error        // of its start
	finish  func() error // copies what it reads and writes, and waits for its end
	release func()       // undoes what was made for it
}

// session serves a session from its opening to its end.
func (c *conn) session(ctx context.Context, n ssh.NewChannel) {
	channel, requests, err := n.Accept()
	if err != nil {
		return
	}
	s := &session{conn: c, channel: channel, release: func() {}}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	var running sync.WaitGroup
	for r := range requests {
		had := s.cmd
		ok := s.serve(ctx, r)
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
		if s.cmd != had { // not before the reply: a client may expect it before what the command says
			running.Go(func() { s.run(ctx) })
		}
	}
	hangUp()
	running.Wait()
	if s.term != nil {
		s.term.close()
	}
}

// serve reports whether a request was granted.
func (s *session) serve(ctx context.Context, r *ssh.Request) bool {
	switch r.Type {
	case "env":
		var v struct{ Name, Value string }
		if ssh.Unmarshal(r.Payload, &v) != nil || len(s.sent) >= maxSent || !variableName.MatchString(v.Name) || strings.ContainsRune(v.Value, 0) {
			return false
		}
		if s.server.held(s.who) && v.Name != "LANG" && !strings.HasPrefix(v.Name, "LC_") {
			return false
		}
		s.sent = append(s.sent, v.Name+"="+v.Value)
		return true
	case "pty-req":
		return s.openTerminal(r.Payload)
	case "window-change":
		return s.term != nil && s.term.resize(r.Payload)
	case "auth-agent-req@openssh.com":
		s.lends = true
		return true
	case "signal":
		var v struct{ Name string }
		return ssh.Unmarshal(r.Payload, &v) == nil && s.signal(v.Name)
	case "shell":
		return s.start(ctx, s.who.shell, "-"+filepath.Base(s.who.shell))
	case "exec":
		var v struct{ Command string }
		if ssh.Unmarshal(r.Payload, &v) != nil || strings.ContainsRune(v.Command, 0) {
			return false
		}
		return s.start(ctx, s.who.shell, filepath.Base(s.who.shell), "-c", v.Command)
	case "subsystem":
		var v struct{ Name string }
		return ssh.Unmarshal(r.Payload, &v) == nil && v.Name == "sftp" && !s.server.held(s.who) && s.start(ctx, s.server.SFTP[0], s.server.SFTP...)
	default:
		return false
	}
}

func (s *session) openTerminal(payload []byte) bool {
	if s.term != nil || s.cmd != nil {
		return false
	}
	t, err := openTerminal(payload, s.who)
	if err != nil {
		s.server.Log.Info("ssh session without a terminal", "error", err)
		return false
	}
	s.term = t
	return true
}

// signals are those of RFC 4254, section 6.10.
var signals = map[string]syscall.Signal{
	"ABRT": unix.SIGABRT, "ALRM": unix.SIGALRM, "FPE": unix.SIGFPE, "HUP": unix.SIGHUP, "ILL": unix.SIGILL, "INT": unix.SIGINT, "KILL": unix.SIGKILL,
	"PIPE": unix.SIGPIPE, "QUIT": unix.SIGQUIT, "SEGV": unix.SIGSEGV, "TERM": unix.SIGTERM, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2,
}

// signal sends a signal to the command and what it has started.
func (s *session) signal(name string) bool {
	sig, known := signals[name]
	return known && s.cmd != nil && s.cmd.Process != nil && unix.Kill(-s.cmd.Process.Pid, sig) == nil
}

// start starts a program, whose failure is for run to tell. It reports whether the session was still without one.
func (s *session) start(ctx context.Context, program string, args ...string) bool {
	if s.cmd != nil {
		return false
	}
	env := s.sent
	if s.lends {
		socket, remove, err := s.lendKeys(ctx)
		if err != nil {
			s.server.Log.Info("ssh session without its client's keys", "error", err)
		} else {
			env, s.release = append(env, "SSH_AUTH_SOCK="+socket), remove
		}
	}
	s.cmd = &exec.Cmd{
		Path: program, Args: args, Dir: s.who.home,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Credential: s.who.credential()},
	}
	if !s.who.enters(s.cmd.Dir) {
		s.cmd.Dir = "/"
	}
	if s.term != nil {
		s.cmd.Env = s.server.environment(s.who, append(env, "TERM="+s.term.kind, "SSH_TTY="+s.term.name))
		s.failed = s.attach(ctx)
	} else {
		s.cmd.Env = s.server.environment(s.who, env)
		s.failed = s.pipe(ctx)
	}
	return true
}

// pipe starts the command with pipes.
func (s *session) pipe(ctx context.Context) error {
	in, ierr := s.cmd.StdinPipe()
	out, oerr := s.cmd.StdoutPipe()
	complaints, cerr := s.cmd.StderrPipe()
	if err := errors.Join(ierr, oerr, cerr); err != nil {
		return err
	}
	if err := s.server.Start(s.cmd); err != nil {
		return err
	}
	// What the command then reads or writes fails, as if its other end had gone.
	context.AfterFunc(ctx, func() { _, _, _ = in.Close(), out.Close(), complaints.Close() })
	s.finish = func() error {
		go func() { // until the channel is closed, or nobody reads it any more
			_, _ = io.Copy(in, s.channel)
			_ = in.Close()
		}()
		var said sync.WaitGroup
		said.Go(func() { drain(s.channel, out) })
		said.Go(func() { drain(s.channel.Stderr(), complaints) })
		said.Wait() // until all have closed them to whom the command gave them
		return s.cmd.Wait()
	}
	return nil
}

// drain copies what a command says. A client that takes no more of it ends the command by its next word.
func drain(to io.Writer, from io.ReadCloser) {
	_, _ = io.Copy(to, from)
	_ = from.Close()
}

// attach starts the command on the session's terminal.
func (s *session) attach(ctx context.Context) error {
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.term.tty, s.term.tty, s.term.tty
	s.cmd.SysProcAttr.Setctty = true
	err := s.server.Start(s.cmd)
	if err := errors.Join(err, s.term.tty.Close()); err != nil {
		return err
	}
	context.AfterFunc(ctx, s.term.close) // hangs up
	s.finish = func() error {
		if s.cmd.Args[0][0] == '-' {
			s.greet()
		}
		go func() { _, _ = io.Copy(s.term.pty, s.channel) }() // until the channel is closed
		said := make(chan struct{})
		go func() {
			defer close(said)
			s.term.copyTo(s.channel)
		}()
		err := s.cmd.Wait()
		s.term.left()
		<-said
		return err
	}
	return nil
}

// greet shows the guest's message of the day, as a login does.
func (s *session) greet() {
	if _, err := os.Lstat(filepath.Join(s.server.Root, s.who.home, ".hushlogin")); err == nil {
		return
	}
	text, _ := readFile(filepath.Join(s.server.Root, "etc/motd"))
	_, _ = s.channel.Write(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
}

// run lets the command go on to its end, and tells the client of it. A command that outlives its client is left to itself.
func (s *session) run(ctx context.Context) {
	if s.failed != nil {
		s.release()
		_, _ = io.WriteString(s.channel.Stderr(), s.failed.Error()+"\n")
		s.exit(notExecutable)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- s.finish() }()
	select {
	case err := <-ended:
		s.release() // before the client can think that it is over
		s.exit(status(err))
	case <-ctx.Done():
		s.release()
	}
}

// Statuses as shells have them.
const (
	notExecutable = 126
	signalled     = 128 // and the signal
	unknown       = 255
)

// status is what a command's end is called. A signal is told of by a shell's status for it: of SSH's own way to tell it,
// its programs make 255, which is their word for a lost connection.
func status(err error) uint32 {
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return unknown
	}
	if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return signalled + uint32(ws.Signal())
	}
	return uint32(e.ExitCode())
}

// exit ends the channel.
func (s *session) exit(status uint32) {
	_ = s.channel.CloseWrite()
	_, _ = s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
	_ = s.channel.Close()
}
