package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/op"
)

// events follows an operation as server-sent events. Each is the whole operation, so that a client
// which comes back needs no memory of what it saw.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	o, err := s.operation(r.Context(), op.ID(r.PathValue("id")))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	send := func(o op.Operation) error {
		if _, err := fmt.Fprintf(w, "event: operation\ndata: %s\n", encode(o)); err != nil {
			return err
		}
		return rc.Flush()
	}
	if o.State.Ended() {
		_ = send(o) // a client that has gone needs no answer
		return
	}
	_ = s.Operations.Follow(r.Context(), o.ID, send)
}

// importImage reads a tree as it comes. The first line of the answer is the operation; the answer ends
// when the operation has. That needs both directions at once.
func (s *server) importImage(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		refuse(w, err)
		return
	}
	q := r.URL.Query()
	o, err := s.Verbs.ImportImage(callerOf(r.Context()), lifecycle.ImportRequest{
		Name: q.Get("name"), Source: q.Get("source"), Tar: r.Body,
	}, q.Get("kernel_from"))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(encode(o)) // a client that has gone ends the body, and with it the operation
	_ = rc.Flush()
	// The body is the operation's until it has ended, whoever still listens.
	_ = s.Operations.Follow(context.WithoutCancel(r.Context()), o.ID, func(op.Operation) error { return nil })
}

// dial joins the caller's connection to a TCP connection inside the guest.
func (s *server) dial(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.Atoi(r.URL.Query().Get("port"))
	if err != nil {
		refuse(w, fault.New(fault.Invalid, "the port is not a number").WithOp("dial into VM", r.PathValue("vm")).WithHint("such as ?port=22"))
		return
	}
	if r.Header.Get("Upgrade") != api.Stream {
		refuse(w, fault.New(fault.Invalid, "the request does not ask for the upgrade to %s", api.Stream).WithOp("dial into VM", r.PathValue("vm")).
			WithHint("send the headers Connection: Upgrade and Upgrade: %s", api.Stream))
		return
	}
	far, err := s.Verbs.Dial(r.Context(), callerOf(r.Context()), r.PathValue("vm"), r.URL.Query().Get("host"), port)
	if err != nil {
		refuse(w, err)
		return
	}
	defer far.Close()
	near, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, err)
		return
	}
	defer near.Close()
	if _, err := fmt.Fprintf(near, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", api.Stream); err != nil {
		return
	}
	join(near, rw.Reader, far)
}

// join copies both ways. Each direction's end is passed on alone, so that `… | ssh vm cat` ends.
func join(near net.Conn, sent *bufio.Reader, far net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { pipe(far, sent) })
	wg.Go(func() { pipe(near, far) })
	wg.Wait()
}

func pipe(dst net.Conn, src io.Reader) {
	_, err := io.Copy(dst, src)
	half, ok := dst.(interface{ CloseWrite() error })
	if err != nil || !ok {
		_ = dst.Close() // which ends the other direction too
		return
	}
	_ = half.CloseWrite()
}

// Bounds of reading a log.
const (
	maxTail    = 4 << 20 // bytes
	followStep = 200 * time.Millisecond
)

// logs sends a VM's raw log, or to root the daemon's. The text is escaped by whoever shows it.
func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	path, err := s.logPath(r)
	if err != nil {
		refuse(w, err)
		return
	}
	q := r.URL.Query()
	lines, _ := strconv.Atoi(q.Get("tail")) // absent is all
	f, err := os.Open(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		refuse(w, fault.System(err, "read log", path))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if f == nil && q.Get("follow") != "true" {
		return // nothing was logged yet
	}
	l := &follower{path: path, f: f, w: w, flush: http.NewResponseController(w).Flush}
	defer l.close()
	if err := l.tail(lines); err != nil || q.Get("follow") != "true" {
		return
	}
	tick := time.NewTicker(followStep)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			if l.more() != nil {
				return
			}
		}
	}
}

func (s *server) logPath(r *http.Request) (string, error) {
	caller := callerOf(r.Context())
	v, err := s.Verbs.Find(r.Context(), caller, r.PathValue("vm"))
	if err != nil {
		return "", err
	}
	switch source := r.URL.Query().Get("source"); source {
	case "", "console":
		return s.Layout.ConsoleLog(v.ID), nil
	case "firecracker":
		return s.Layout.FirecrackerLog(v.ID), nil
	case "daemon":
		if caller.UID != 0 {
			return "", fault.New(fault.Forbidden, "the daemon's log tells of everyone's VMs").WithOp("read log", source).WithHint("use sudo")
		}
		return s.Layout.DaemonLog(), nil
	default:
		return "", fault.New(fault.Invalid, "there is no such log").WithOp("read log", source).WithHint("choose console, firecracker or daemon")
	}
}
