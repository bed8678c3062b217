package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"banger/internal/fault"
)

// maxLog is when the daemon's log is put aside for a new one: an ordinary one grows a few MiB a month, one of a host that
// makes VMs all day as much in a day.
const maxLog = 32 << 20

// openLog begins the JSON log. What the log cannot take goes to standard error too while it starts.
func (d *Daemon) openLog() (closeLog func(), err error) {
	l := &logFile{path: d.layout.DaemonLog(), most: maxLog}
	if err := l.open(); err != nil {
		return nil, err
	}
	d.log = slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.Level(d.cfg.LogLevel)}))
	return func() { _ = l.f.Close() }, nil
}

// logFile is a file that is put aside, as path + ".1", before it would hold more than most bytes. One writes to it at a
// time, whole lines each, as slog's handlers do.
type logFile struct {
	path string
	most int64
	f    *os.File
	size int64
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.System(err, "open log", l.path)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fault.System(err, "open log", l.path), f.Close())
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer.
func (l *logFile) Write(line []byte) (int, error) {
	if l.size > 0 && l.size+int64(len(line)) > l.most {
		l.putAside()
	}
	n, err := l.f.Write(line)
	l.size += int64(n)
	return n, err
}

// putAside begins a new file. Where it cannot, the old one goes on: a log that is too long is better than none.
func (l *logFile) putAside() {
	old := l.f
	err := os.Rename(l.path, l.path+".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // who removes it by hand wants space, not silence
		return
	}
	if l.open() == nil {
		_ = old.Close() // all of it was written
	}
}
