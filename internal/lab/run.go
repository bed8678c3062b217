package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

// Run describes one run of a throw-away lab host.
type Run struct {
	Argv    []string
	Env     []string // added to the lab host's own
	Dir     string   // where it runs; /src when empty
	Systemd bool     // boot the distribution's init and run the command as a unit
	Memory  int      // MiB; 2048 when zero
	CPUs    int      // 1 when zero
	Out     string   // folder shared read-write at /out; empty is a throw-away one
	Images  string   // folder shared read-only at /images; empty is none
	Net     bool     // give the lab host package registries
	Disk    string   // raw disk mounted at /scratch, an XFS; empty is a blank sparse one of DiskSize
	// DiskSize is the blank scratch disk's size in bytes; zero and an empty Disk is no scratch disk.
	DiskSize int64
	Keep     bool          // write to Disk itself instead of a throw-away view of it
	Timeout  time.Duration // 15 minutes when zero
	TTY      bool          // the command gets a terminal of its own
	Size     func() (rows, cols uint16)

	Stdin          io.Reader // nil is none
	Stdout, Stderr io.Writer
	// Begun is called when the command is about to run, with the time since power-on.
	Begun func(time.Duration)
}

// ErrLost is what ends a run whose lab host went away without a word, or fell silent: the emulator gets a
// nested guest's state wrong now and then, and with it the lab host's. Nothing that runs in it is to blame.
var ErrLost = errors.New("the lab host was lost")

// How often a lab host says that it is alive, and how long it may say nothing. Its clock runs slower than
// ours, and the machine may be busy.
const (
	sayAlive = 5 * time.Second
	silence  = 90 * time.Second
)

// Run boots a lab host, runs the command in it and returns its exit status. The host dies with ctx
// and with this process.
func (l *Lab) Run(ctx context.Context, r Run) (status int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, orDefault(r.Timeout, 15*time.Minute), fault.New(fault.Timeout, "the lab run took too long").
		WithHint("give it more with --timeout"))
	defer cancel()
	dir, leave, err := l.room(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	m, err := l.machine(r, dir)
	if err != nil {
		return 0, err
	}
	ports, err := listen(dir)
	if err != nil {
		return 0, err
	}
	defer ports.close()

	var console tail
	cpu, vacate, err := l.processor()
	if err != nil {
		return 0, err
	}
	defer vacate()
	q, err := startQEMU(ctx, m.argv(), cpu, &console)
	if err != nil {
		return 0, err
	}
	go func() { <-q.gone; ports.refuse() }()
	power := time.Now()
	status, err = r.converse(ctx, ports, power)
	if err == nil {
		// It has told its status and powers itself off; give it a moment to sync.
		select {
		case <-q.gone:
		case <-time.After(20 * time.Second):
		}
	}
	q.kill()
	<-q.gone
	if err == nil {
		return status, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if errors.Is(err, ErrLost) {
		err = fmt.Errorf("%w; the emulator's end: %s", err, q.cmd.ProcessState)
	}
	f := fault.From(err)
	if f.Code == fault.Internal {
		f = fault.New(fault.Unavailable, "%w", err)
	}
	return 0, f.InOp("run in the lab", strings.Join(r.Argv, " ")).WithDetail(console.String())
}

func (l *Lab) machine(r Run, dir string) (machine, error) {
	m := machine{
		kernel: l.Kernel(), root: l.Root(), initrd: filepath.Join(dir, "initrd"),
		memory: orDefault(r.Memory, 2048), cpus: orDefault(r.CPUs, 1), net: r.Net, sockets: dir, systemd: r.Systemd,
		disk: r.Disk, keepDisk: r.Keep,
	}
	if err := l.writeInitrd(m.initrd); err != nil {
		return m, err
	}
	if m.disk == "" && r.DiskSize > 0 {
		m.disk = filepath.Join(dir, "scratch.raw")
		if err := sparse(m.disk, r.DiskSize); err != nil {
			return m, err
		}
	}
	out := r.Out
	if out == "" {
		out = filepath.Join(dir, "out")
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		return m, err
	}
	m.shares = []share{{tagSrc, l.Source, true}, {tagOut, out, false}}
	if r.Images != "" {
		m.shares = append(m.shares, share{tagImages, r.Images, true})
	}
	return m, nil
}

// qemu is a running emulator.
type qemu struct {
	cmd  *exec.Cmd
	gone chan struct{}
}

// startQEMU starts the emulator on a thread of its own that lives as long as it does: the kernel
// sends the death signal when the starting thread ends, not when the process does.
func startQEMU(ctx context.Context, argv []string, cpu int, console io.Writer) (*qemu, error) {
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, fault.New(fault.Requirement, "qemu-system-x86_64 is not installed").WithOp("start lab host", "").
			WithHint("apt-get install qemu-system-x86")
	}
	q := &qemu{cmd: exec.Command(path, argv...), gone: make(chan struct{})} //nolint:noctx // ended by kill below, which waits for it
	q.cmd.Stdout, q.cmd.Stderr = console, console
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this function
		var only unix.CPUSet
		only.Set(cpu)
		if err := unix.SchedSetaffinity(0, &only); err != nil {
			started <- err
			return
		}
		// The emulator inherits it. Where other work on the machine takes its time, its timers' interrupts take all that
		// is left, and its processors get nowhere. Refused to who is not root.
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, emulatorNice)
		err := q.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = q.cmd.Wait() // how it ended is told over the control port, or not at all
		close(q.gone)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	context.AfterFunc(ctx, q.kill)
	return q, nil
}

// emulatorNice is the emulator's niceness where we may choose it.
const emulatorNice = -10

func (q *qemu) kill() { _ = q.cmd.Process.Kill() } // already gone is fine

// ports are the callers' ends of the lab host's serial ports.
type ports struct {
	listeners map[string]net.Listener
	conns     map[string]net.Conn
	mu        sync.Mutex
}

func listen(dir string) (*ports, error) {
	p := &ports{listeners: map[string]net.Listener{}, conns: map[string]net.Conn{}}
	for _, name := range []string{portControl, portIn, portOut, portErr} {
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "unix", filepath.Join(dir, name))
		if err != nil {
			p.close()
			return nil, err
		}
		p.listeners[name] = l
	}
	return p, nil
}

// refuse ends the wait for a QEMU that has gone. What its ports still hold can be read.
func (p *ports) refuse() {
	for _, l := range p.listeners {
		_ = l.Close()
	}
}

// accept waits for QEMU, which opens all ports before it runs a single instruction.
func (p *ports) accept(name string) (net.Conn, error) {
	l := p.listeners[name]
	_ = l.(*net.UnixListener).SetDeadline(time.Now().Add(30 * time.Second)) // a Unix listener takes deadlines
	c, err := l.Accept()
	if err != nil {
		return nil, fmt.Errorf("qemu did not open port %s: %w", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[name] = c
	return c, nil
}

func (p *ports) close() {
	p.refuse()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// converse hands the order over, carries the streams and returns the command's status.
func (r Run) converse(ctx context.Context, p *ports, power time.Time) (int, error) {
	conns := map[string]net.Conn{}
	for _, name := range []string{portControl, portIn, portOut, portErr} {
		c, err := p.accept(name)
		if err != nil {
			return 0, err
		}
		conns[name] = c
	}
	defer context.AfterFunc(ctx, p.close)()
	o := order{Argv: r.Argv, Env: r.Env, Dir: orDefault(r.Dir, mountSrc), TTY: r.TTY, Systemd: r.Systemd, Stdin: r.Stdin != nil}
	if r.Size != nil {
		o.Rows, o.Cols = r.Size()
	}
	control := conns[portControl]
	var sending sync.Mutex
	send := func(v any) error {
		sending.Lock()
		defer sending.Unlock()
		return json.NewEncoder(control).Encode(v)
	}
	if err := send(o); err != nil {
		return 0, fmt.Errorf("hand the command over: %w", err)
	}
	stop := r.passSignals(ctx, send, p.close)
	defer stop()
	if r.Stdin != nil {
		go func() {
			_, _ = io.Copy(conns[portIn], r.Stdin) // the command may end without having read it all
			_ = conns[portIn].Close()
		}()
	}
	var streams sync.WaitGroup
	streams.Go(func() { copyStream(r.Stdout, conns[portOut]) })
	streams.Go(func() { copyStream(r.Stderr, conns[portErr]) })

	words := json.NewDecoder(control)
	for {
		var w toCaller
		_ = control.SetReadDeadline(time.Now().Add(silence)) // a Unix socket takes deadlines
		if err := words.Decode(&w); errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, fmt.Errorf("%w: it said nothing for %s", ErrLost, silence)
		} else if err != nil {
			return 0, fmt.Errorf("%w: it ended before the command did", ErrLost)
		}
		switch {
		case w.Begun && r.Begun != nil:
			r.Begun(time.Since(power))
		case w.Fault != "":
			return 0, fault.New(fault.Internal, "%s", w.Fault)
		case w.Exit != nil:
			// Both streams end with a NUL that the lab host writes after the command's last byte.
			done := make(chan struct{})
			go func() { streams.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				return 0, errors.New("the command's output did not end with it")
			}
			return *w.Exit, nil
		}
	}
}

// endOfStream follows the last byte of the command's output: a serial port has no end of file.
const endOfStream = "\x00\x04lab-end\x00"

// copyStream copies until the end mark, or until the port is gone.
func copyStream(w io.Writer, r io.Reader) {
	var held []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		held = append(held, buf[:n]...)
		if before, _, ok := bytes.Cut(held, []byte(endOfStream)); ok {
			_, _ = w.Write(before) // whoever reads our output may have gone
			return
		}
		// Keep back what could be the beginning of the mark.
		keep := 0
		for k := min(len(endOfStream)-1, len(held)); k > 0; k-- {
			if bytes.HasSuffix(held, []byte(endOfStream[:k])) {
				keep = k
				break
			}
		}
		_, _ = w.Write(held[:len(held)-keep])
		held = append(held[:0], held[len(held)-keep:]...)
		if err != nil {
			_, _ = w.Write(held)
			return
		}
	}
}

// passSignals hands interrupts on to the command instead of dying of them. A second one ends the run: the
// command, or the whole lab host, does not heed it.
func (r Run) passSignals(ctx context.Context, send func(any) error, end func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGWINCH)
	go func() {
		for asked := 0; ; {
			select {
			case <-ctx.Done():
				return
			case s := <-ch:
				word := toHost{}
				if n, ok := s.(syscall.Signal); ok && n != syscall.SIGWINCH {
					word.Signal = int(n)
					if asked++; asked > 1 {
						end()
						return
					}
				} else if r.Size != nil {
					word.Rows, word.Cols = r.Size()
				}
				_ = send(word) // a dead lab host is noticed elsewhere
			}
		}
	}()
	return func() { signal.Stop(ch); cancel() }
}

// tail keeps the last bytes written to it: what an error shows of a console.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String returns what is kept, without what could steer a terminal.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	clean := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return -1
		}
		return r
	}, string(t.buf))
	var kept []string
	for line := range strings.SplitSeq(clean, "\n") {
		if !strings.Contains(line, "TCG doesn't support requested feature") { // harmless: EPYC minus what emulation lacks
			kept = append(kept, line)
		}
	}
	return strings.TrimSpace(strings.Join(kept, "\n"))
}

func sparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
