package sshserver

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// terminal is a session's pseudo-terminal.
type terminal struct {
	pty  *os.File
	tty  *os.File // the command's end, until that has been started
	name string   // "/dev/pts/0"
	kind string   // "xterm-256color"
}

// window is how a client tells a terminal's size, in pty-req as in window-change.
type window struct{ Columns, Rows, Width, Height uint32 }

// openTerminal makes one by a pty-req.
func openTerminal(payload []byte, who account) (*terminal, error) {
	var asked struct {
		Kind                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := ssh.Unmarshal(payload, &asked); err != nil {
		return nil, err
	}
	if strings.ContainsRune(asked.Kind, 0) {
		return nil, errors.New("the terminal's kind is no name")
	}
	t, err := openPair()
	if err != nil {
		return nil, err
	}
	t.kind = asked.Kind
	err = errors.Join(t.setSize(window{asked.Columns, asked.Rows, asked.Width, asked.Height}), t.tty.Chown(int(who.uid), -1), control(t.tty, func(fd int) error { return setModes(fd, asked.Modes) }))
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openPair opens both ends, as pts(4) has it. The package creack/pty makes reads of its terminals impossible to interrupt.
func openPair() (*terminal, error) {
	p, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	number := 0
	err = control(p, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	name := "/dev/pts/" + strconv.Itoa(number)
	if err == nil {
		var t *os.File
		if t, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
			return &terminal{pty: p, tty: t, name: name}, nil
		}
	}
	return nil, errors.Join(err, p.Close())
}

// control does something to a file's descriptor, which stays one that Go's poller waits for.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	err = raw.Control(func(fd uintptr) { derr = do(int(fd)) })
	return errors.Join(err, derr)
}

func (t *terminal) setSize(w window) error {
	short := func(n uint32) uint16 { return uint16(min(n, 1<<16-1)) }
	size := unix.Winsize{Row: short(w.Rows), Col: short(w.Columns), Xpixel: short(w.Width), Ypixel: short(w.Height)}
	return control(t.pty, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &size) })
}

func (t *terminal) resize(payload []byte) bool {
	var w window
	return ssh.Unmarshal(payload, &w) == nil && t.setSize(w) == nil
}

// left tells that the command has ended.
func (t *terminal) left() { _ = t.pty.SetReadDeadline(time.Unix(1, 0)) }

// maxLastWords bounds what is read of a terminal whose command has ended, in bytes: somebody in the background may write on.
const maxLastWords = 1 << 20

// copyTo copies what is written to the terminal until that is closed, or its command has ended. What that said is there by
// then: all of it is copied, and who still has the terminal open, in the background, is not waited for.
func (t *terminal) copyTo(to io.Writer) {
	buf := make([]byte, 4<<10)
	for {
		n, err := t.pty.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return
		}
	}
	for said := 0; said < maxLastWords; {
		n := 0
		err := control(t.pty, func(fd int) (err error) { // it is non-blocking
			n, err = unix.Read(fd, buf)
			return err
		})
		if err != nil || n <= 0 {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		said += n
	}
}

// close hangs up.
func (t *terminal) close() { _, _ = t.pty.Close(), t.tty.Close() }
