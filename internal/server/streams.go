package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/fault"
	"banger/internal/fdpass"
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
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n", api.EventOperation, encode(o)); err != nil {
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
	// What is still being sent when this ends is nobody's: no other request may come after it.
	w.Header().Set("Connection", "close")
	q := r.URL.Query()
	o, err := s.Verbs.ImportImage(callerOf(r.Context()), lifecycle.ImportRequest{
		Name: q.Get("name"), Source: q.Get("source"), Tar: r.Body,
		Interrupt: func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }, // fails only where the connection has ended
	}, q.Get("kernel_from"))
	if err != nil {
		refuse(w, err)
		return
	}
	if r.Header.Get("Expect") != "" { // answering it would say that the tree is not wanted
		w.WriteHeader(http.StatusContinue)
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
	upgrade(w, r, api.Stream, func() (net.Conn, error) {
		return s.Verbs.Dial(r.Context(), callerOf(r.Context()), r.PathValue("vm"), r.URL.Query().Get("host"), port)
	}, join)
}

// ssh hands the caller a connection to the SSH server of the guest's agent.
func (s *server) ssh(w http.ResponseWriter, r *http.Request) {
	upgrade(w, r, api.Descriptor, func() (net.Conn, error) {
		return s.Verbs.SSH(r.Context(), callerOf(r.Context()), r.PathValue("vm"))
	}, func(near net.Conn, _ *bufio.Reader, far net.Conn) {
		to, local := near.(*net.UnixConn)
		file, is := far.(syscall.Conn)
		if local && is {
			_ = fdpass.Send(to, file) // a caller that has gone needs none
		}
	})
}

// upgrade makes something else of the caller's connection than HTTP, with another connection that open opens. Both are closed
// once that has been served.
func upgrade(w http.ResponseWriter, r *http.Request, protocol string, open func() (net.Conn, error), serve func(near net.Conn, sent *bufio.Reader, far net.Conn)) {
	if r.Header.Get("Upgrade") != protocol {
		refuse(w, fault.New(fault.Invalid, "the request does not ask for the upgrade to %s", protocol).WithOp("connect to VM", r.PathValue("vm")).
			WithHint("send the headers Connection: Upgrade and Upgrade: %s", protocol))
		return
	}
	far, err := open()
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
	if _, err := fmt.Fprintf(near, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol); err != nil {
		return
	}
	serve(near, rw.Reader, far)
}

// hangupStep is how often a client that has said all is looked at.
const hangupStep = time.Second

// join copies both ways. Each direction's end is passed on alone, so that `… | ssh vm cat` ends.
func join(near net.Conn, sent *bufio.Reader, far net.Conn) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		pipe(near, far)
	}()
	pipe(far, sent)
	// A client that has gone looks like one that has said all. A guest that is silent, and does not
	// mind that nothing more comes, would hold the stream for ever.
	tick := time.NewTicker(hangupStep)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			if hungUp(near) {
				_ = far.Close()
			}
		}
	}
}

// hungUp reports whether the other end was closed for good, not for writing alone.
func hungUp(conn net.Conn) bool {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return true
	}
	hangup := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, perr := unix.Poll(p, 0)
		hangup = perr == nil && p[0].Revents&unix.POLLHUP != 0
	})
	return hangup || err != nil
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
