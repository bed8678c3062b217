// Package drain empties FIFOs into log files that cannot grow without bound.
//
// A program that writes to a FIFO needs no helper process beside it, and outlives the daemon: what
// it writes meanwhile waits in the pipe, up to 1 MiB, for the next daemon.
package drain

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/plain"
	"banger/internal/logtime"
)

// Bounds of one drain.
const (
	pipeSize = 1 << 20 // what the kernel holds while nobody reads; also its default limit
	maxLog   = 1 << 20 // of each of the two generations of a log
	maxLine  = 1 << 10 // of a line as it is handed on
	readSize = 4 << 10 // there are two drains a VM, which wait all day with it on their stacks
)

// Drain empties one FIFO.
type Drain struct {
	fifo *os.File
	log  log
	line func(string)
	part []byte // the line that is being received
	done chan struct{}
	err  error // the first failure to write the log; read it after done
}

// Open makes the FIFO where it is missing, opens it, and starts to empty it into the log file, whose
// older part is kept beside it with the suffix ".1". Each line is handed to line, without control
// characters and cut to 1 KiB; it must not block for long.
func Open(fifo, logfile string, line func(string)) (*Drain, error) {
	f, err := OpenFIFO(fifo)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(logfile), 0o700); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &Drain{fifo: f, log: log{path: logfile}, line: line, done: make(chan struct{})}
	if err := d.log.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	go d.run()
	return d, nil
}

// OpenFIFO makes a FIFO where it is missing and opens it for reading and writing. That never blocks,
// and whoever holds it this way never sees the other end vanish.
func OpenFIFO(path string) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, &fs.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&fs.ModeNamedPipe == 0 {
		err = fmt.Errorf("%s is not a FIFO", path)
	}
	if err == nil {
		err = setPipeSize(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func setPipeSize(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		// Best effort: beyond the host's limit for a user the pipe stays as it is.
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize)
	})
}

// run reads until Close sets a deadline, and then what is still in the pipe.
func (d *Drain) run() {
	defer close(d.done)
	buf := make([]byte, readSize)
	for {
		n, err := d.fifo.Read(buf)
		d.take(buf[:n])
		if err != nil {
			break
		}
	}
	raw, err := d.fifo.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			// Two pipes' worth, so that a writer that does not stop cannot hold us.
			for left := 2 * pipeSize; left > 0; {
				n, err := unix.Read(int(fd), buf)
				if err != nil || n <= 0 {
					return
				}
				d.take(buf[:n])
				left -= n
			}
		})
	}
	if len(d.part) > 0 {
		d.end()
	}
	d.keep(d.log.close())
	d.keep(d.fifo.Close())
}

func (d *Drain) keep(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *Drain) take(p []byte) {
	if len(p) == 0 {
		return
	}
	d.keep(d.log.write(p))
	for _, b := range p {
		switch {
		case b == '\n':
			d.end()
		case len(d.part) < maxLine:
			d.part = append(d.part, b)
		}
	}
}

func (d *Drain) end() {
	if line := plain.Line(string(d.part)); line != "" {
		d.line(line)
	}
	d.part = d.part[:0]
}

// Close takes what is still in the pipe, ends the drain, and returns the first failure to write the
// log. It may be called once.
func (d *Drain) Close() error {
	err := d.fifo.SetReadDeadline(time.Unix(0, 1))
	if err != nil {
		return err
	}
	<-d.done
	return d.err
}

// Append adds a line that carries its own time to a log which is bounded as a drain's is. Its directory is there.
func Append(path string, line []byte) error {
	l := log{path: path, dated: true}
	if err := l.open(); err != nil {
		return err
	}
	return errors.Join(l.write(append(line, '\n')), l.close())
}

// log is a file that is set aside when it is full.
type log struct {
	path  string
	file  *os.File
	size  int64
	dated bool // its lines tell when they were written, so that is not noted beside them
	times logtime.Notes
}

func (l *log) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

func (l *log) close() error { return l.file.Close() }

func (l *log) write(p []byte) error {
	if l.size > 0 && l.size+int64(len(p)) > maxLog {
		// It may have been removed by hand, or set aside already where opening the next one failed.
		if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := l.times.PutAside(l.path, l.path+".1"); err != nil {
			return err
		}
		old := l.file
		if err := l.open(); err != nil {
			return err
		}
		if err := old.Close(); err != nil {
			return err
		}
	}
	var noted error
	if !l.dated {
		noted = l.times.Grows(l.path, l.size)
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return errors.Join(err, noted)
}
