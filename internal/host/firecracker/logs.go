package firecracker

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"banger/internal/host/drain"
	"banger/internal/vm"
)

// Bounds of what is passed on of Firecracker's log.
const (
	lastLines   = 12  // kept for an error
	linesPerSec = 100 // to the daemon's log: a guest can provoke messages
)

// logs drains what one Firecracker and its guest write.
type logs struct {
	console, own *drain.Drain
	recent       *recent
	spoke        chan struct{} // has room for one: Firecracker wrote a line since the last look
}

// openLogs starts to drain both FIFOs in dir into the VM's log files.
func openLogs(layout vm.Layout, id vm.ID, dir string, console func(string), log *slog.Logger) (*logs, error) {
	l := &logs{recent: &recent{}, spoke: make(chan struct{}, 1)}
	var err error
	if l.console, err = drain.Open(filepath.Join(dir, fileConsole), layout.ConsoleLog(id), console); err != nil {
		return nil, err
	}
	log = log.With("vm", id)
	var rate limiter
	l.own, err = drain.Open(filepath.Join(dir, fileLog), layout.FirecrackerLog(id), func(line string) {
		l.recent.add(line)
		select {
		case l.spoke <- struct{}{}:
		default:
		}
		if ok, dropped := rate.allow(time.Now()); ok {
			if dropped > 0 {
				log.Debug("lines of Firecracker were left out", "lines", dropped)
			}
			log.LogAttrs(context.Background(), slog.LevelDebug, "firecracker", slog.String("line", line))
		}
	})
	if err != nil {
		return nil, errors.Join(err, l.console.Close())
	}
	return l, nil
}

// close takes what is still in the FIFOs.
func (l *logs) close() error { return errors.Join(l.console.Close(), l.own.Close()) }

// last returns Firecracker's last lines of this run.
func (l *logs) last() []string { return l.recent.get() }

type recent struct {
	mu    sync.Mutex
	lines []string
}

func (r *recent) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	r.lines = r.lines[max(0, len(r.lines)-lastLines):]
}

func (r *recent) get() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// limiter lets linesPerSec lines through in each second. It is used by one goroutine.
type limiter struct {
	second  int64
	lines   int
	dropped int
}

// allow reports whether a line may pass, and with the first of a second how many were dropped before.
func (l *limiter) allow(now time.Time) (ok bool, dropped int) {
	if s := now.Unix(); s != l.second {
		dropped = l.dropped
		*l = limiter{second: s}
	}
	if l.lines >= linesPerSec {
		l.dropped++
		return false, 0
	}
	l.lines++
	return true, dropped
}
