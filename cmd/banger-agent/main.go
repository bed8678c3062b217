// Command banger-agent is banger's part of a guest. One static binary has three lives: PID 1 of the
// initrd, the supervisor that PID 1 leaves behind, and the server that the supervisor keeps running.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/mdlayher/vsock"
	"github.com/pkg/sftp"

	"banger/internal/agent"
	"banger/internal/agent/initrd"
	"banger/internal/agent/machine"
	"banger/internal/agent/sshserver"
	"banger/internal/agent/supervise"
	"banger/internal/agentproto"
	"banger/internal/buildinfo"
)

// The roles, as arguments.
const (
	roleSupervise = "supervise"
	roleServe     = "serve"
	roleSFTP      = "sftp" // one SFTP session, as the user who asked for it
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime})).With("program", "banger-agent")
	version := buildinfo.Current().String()
	if err := os.WriteFile("/proc/self/comm", []byte("banger-agent"), 0); err != nil && os.Getpid() != 1 {
		log.Error("name the process", "error", err) // it was executed as /proc/self/exe
	}
	switch {
	case os.Getpid() == 1:
		(&initrd.Boot{Dial: dialHost, Version: version, Resident: []string{"banger-agent", roleSupervise}, Log: log}).Run()
	case len(os.Args) == 2 && os.Args[1] == roleSupervise:
		superviseServer(log)
	case len(os.Args) == 2 && os.Args[1] == roleServe:
		err := serve(version, log)
		log.Error("server", "error", err)
		os.Exit(1)
	case len(os.Args) == 2 && os.Args[1] == roleSFTP:
		if err := serveSFTP(); err != nil {
			log.Error("sftp", "error", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "banger-agent %s: the part of banger that runs inside its guests; it is not run by hand\n", version)
		os.Exit(2)
	}
}

// withoutTime leaves the time to the kernel's log.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func dialHost(context.Context) (net.Conn, error) {
	c, err := vsock.Dial(agentproto.HostCID, agentproto.ControlPort, nil)
	if err != nil {
		return nil, err // not c: a nil *vsock.Conn is no nil net.Conn
	}
	return c, nil
}

func superviseServer(log *slog.Logger) {
	debug.SetGCPercent(20)
	// The guest runs out of memory before it runs out of an agent. The server inherits it.
	if err := machine.Shield(); err != nil {
		log.Error("shield from the OOM killer", "error", err)
	}
	// Users' sessions inherit it: as many as systemd allows what it starts.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1 << 10, Max: 1 << 19}); err != nil {
		log.Error("allow sessions many open files", "error", err)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	s := &supervise.Supervisor{
		Start: func() (*os.Process, error) { return startServer(log) },
		Term:  term, AwaitsUs: machine.AwaitsEnd, Log: log,
	}
	s.Run(context.Background())
}

// startServer starts the server, which is to live until the guest ends. The @ asks systemd not to end
// it with the other processes (systemd.io/ROOT_STORAGE_DAEMONS).
func startServer(log *slog.Logger) (*os.Process, error) {
	p, err := os.StartProcess("/proc/self/exe", []string{"@banger-agent", roleServe}, &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return nil, err
	}
	if err := machine.Spare(p.Pid); err != nil {
		log.Error("have System V's init spare the server", "error", err)
	}
	return p, nil
}

func serve(version string, log *slog.Logger) error {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(10 << 20) // beyond it memory is reused eagerly, not refused
	told := make(chan os.Signal, 1)
	signal.Notify(told, supervise.Terminating)
	// Not ignored: users' programs would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	terminating := make(chan struct{})
	go func() {
		for range told {
			terminating <- struct{}{}
		}
	}()

	identity, err := whoIAm()
	if err != nil {
		return err
	}
	l, err := vsock.Listen(agentproto.RequestPort, nil)
	if err != nil {
		return fmt.Errorf("listen for the host: %w", err)
	}
	m := &machine.Machine{Version: version, Log: log}
	door := &sshserver.Server{Root: "/", SFTP: []string{"/proc/self/exe", roleSFTP}, Start: m.StartSession, Log: log}
	a := &agent.Agent{
		Listener:    hostOnly{l},
		DialHost:    dialHost,
		Hello:       initrd.Hello(version, agentproto.PhaseResident),
		Identity:    identity,
		Machine:     m,
		SSH:         door.Open,
		Log:         log,
		Terminating: terminating,
	}
	return a.Run(context.Background())
}

// serveSFTP serves a client on the standard streams until it has gone.
func serveSFTP() error {
	s, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout}, sftp.WithServerWorkingDirectory(os.Getenv("HOME")))
	if err != nil {
		return err
	}
	if err := s.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// whoIAm is what the initrd's agent left in the environment, unless the guest has become another since.
func whoIAm() (agent.Identity, error) {
	begun := agent.Identity{Token: os.Getenv(initrd.TokenEnv)}
	if list := os.Getenv(initrd.ServicesEnv); list != "" {
		if err := json.Unmarshal([]byte(list), &begun.Services); err != nil {
			return begun, fmt.Errorf("%s: %w", initrd.ServicesEnv, err)
		}
	}
	if err := os.Unsetenv(initrd.TokenEnv); err != nil { // what the server starts needs none
		return begun, err
	}
	return machine.Kept(begun)
}

// hostOnly accepts the host's connections only. Any process of the guest can dial a vsock port of
// the guest, and none of them may have the agent's powers.
type hostOnly struct{ net.Listener }

func (l hostOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if a, ok := c.RemoteAddr().(*vsock.Addr); ok && a.ContextID == agentproto.HostCID {
			return c, nil
		}
		_ = c.Close()
	}
}
