// Package fdpass hands open files from one process to another over a Unix socket (unix(7), SCM_RIGHTS).
package fdpass

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Send sends a file, with one byte to carry it. The sender's own stays open.
func Send(to *net.UnixConn, file syscall.Conn) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		_, _, serr = to.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, serr)
}

// Reader reads from a Unix socket, and keeps the last file that comes with what it reads. Whoever reads such a socket by
// other means loses the file.
type Reader struct {
	Conn *net.UnixConn
	file *os.File
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	n, cn, _, _, err := r.Conn.ReadMsgUnix(p, control)
	if cn > 0 {
		r.keep(control[:cn])
	}
	return n, err
}

func (r *Reader) keep(control []byte) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return // it is none of ours
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			_ = r.Close()
			r.file = os.NewFile(uintptr(fd), "passed")
		}
	}
}

// ErrNone is returned where no file has come.
var ErrNone = errors.New("no open file has come with it")

// Take returns the file that has come. It is the caller's to close.
func (r *Reader) Take() (*os.File, error) {
	f := r.file
	r.file = nil
	if f == nil {
		return nil, ErrNone
	}
	return f, nil
}

// Close closes a file that nobody has taken.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	return f.Close()
}
