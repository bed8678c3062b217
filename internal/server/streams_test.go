package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/server"
	"banger/internal/vm"
)

// pair returns both ends of a connection that can be half-closed.
func pair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "p"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	a, err := d.DialContext(t.Context(), "unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

// dialled opens a stream and returns its end here and the guest's end.
func (w *world) dialled() (here net.Conn, guest *net.UnixConn) {
	w.t.Helper()
	far, guest := pair(w.t)
	w.verbs.dialed = func() (net.Conn, error) { return far, nil }
	here, err := w.client.Dial(w.t.Context(), "dev", 22)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = here.Close() })
	if err := here.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return here, guest
}

// TestAStreamCarriesBothWays sends more than any buffer holds, both ways at once, each closed alone.
func TestAStreamCarriesBothWays(t *testing.T) {
	w := newWorld(t)
	here, guest := w.dialled()
	up, down := noise(3<<20), noise(5<<20)
	results := make(chan error, 4)
	send := func(c net.Conn, data []byte) {
		_, err := c.Write(data)
		results <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
	}
	receive := func(c net.Conn, want []byte) {
		got, err := io.ReadAll(c)
		if err == nil && !bytes.Equal(got, want) {
			err = errors.New("other bytes arrived than were sent")
		}
		results <- err
	}
	go send(here, up)
	go send(guest, down)
	go receive(here, down)
	go receive(guest, up)
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if asked := w.verbs.took(); asked != `dial "dev"  22` {
		t.Errorf("asked %q", asked)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// TestAHalfClosedStreamGoesOn is `tar c . | ssh vm 'cat > x; echo done'`.
func TestAHalfClosedStreamGoesOn(t *testing.T) {
	w := newWorld(t)
	here, guest := w.dialled()
	if _, err := io.WriteString(here, "all there is"); err != nil {
		t.Fatal(err)
	}
	if err := here.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(guest); err != nil || string(got) != "all there is" {
		t.Fatalf("the guest got %q, %v", got, err)
	}
	if _, err := io.WriteString(guest, "done"); err != nil {
		t.Fatal(err)
	}
	_ = guest.Close()
	if got, err := io.ReadAll(here); err != nil || string(got) != "done" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestWhatTheGuestSaysAtOnceIsNotLost is about bytes that come with the answer to the upgrade, as an
// SSH server's banner may.
func TestWhatTheGuestSaysAtOnceIsNotLost(t *testing.T) {
	w := newWorld(t)
	far, guest := pair(t)
	if _, err := io.WriteString(guest, "SSH-2.0-x\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = guest.Close()
	w.verbs.dialed = func() (net.Conn, error) { return far, nil }
	here, err := w.client.Dial(t.Context(), "dev", 22)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if got, err := io.ReadAll(here); err != nil || string(got) != "SSH-2.0-x\r\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestWhatTheClientSaysAtOnceIsNotLost is about bytes that come with the request.
func TestWhatTheClientSaysAtOnceIsNotLost(t *testing.T) {
	w := newWorld(t)
	far, guest := pair(t)
	w.verbs.dialed = func() (net.Conn, error) { return far, nil }
	conn := w.raw("GET /v1/vms/dev/dial?port=22 HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: banger-stream\r\n\r\nhello")
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(guest); err != nil || string(got) != "hello" {
		t.Errorf("the guest got %q, %v", got, err)
	}
	_ = guest.Close()
	if answer := drainText(t, conn); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Error(answer)
	}
}

func TestAStreamEndsWithEitherSide(t *testing.T) {
	t.Run("the guest's", func(t *testing.T) {
		w := newWorld(t)
		here, guest := w.dialled()
		_ = guest.Close()
		if _, err := io.ReadAll(here); err != nil {
			t.Error(err)
		}
	})
	t.Run("the client's", func(t *testing.T) {
		// The guest's service says nothing and heeds no end of input, so only its close would tell it.
		w := newWorld(t)
		here, guest := w.dialled()
		_ = here.Close()
		if _, err := io.ReadAll(guest); err != nil {
			t.Error(err)
		}
		awaitClosed(t, guest)
	})
}

// awaitClosed waits until the other end is closed for good.
func awaitClosed(t *testing.T, c *net.UnixConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	hangup := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 10_000)
		hangup = err == nil && p[0].Revents&unix.POLLHUP != 0
	})
	if err != nil || !hangup {
		t.Errorf("the connection to the guest is still held, %v", err)
	}
}

// TestOnlyACloseForGoodHangsUp tells a client that listens on from one that has gone.
func TestOnlyACloseForGoodHangsUp(t *testing.T) {
	near, far := pair(t)
	if server.HungUp(far) {
		t.Error("before anything was closed")
	}
	if err := near.CloseWrite(); err != nil || server.HungUp(far) {
		t.Errorf("closed for writing alone: %v", err)
	}
	if _, err := io.ReadAll(far); err != nil || server.HungUp(far) {
		t.Errorf("when all was read: %v", err)
	}
	if err := near.Close(); err != nil || !server.HungUp(far) {
		t.Errorf("closed for good: %v", err)
	}
	if _ = far.Close(); !server.HungUp(far) {
		t.Error("closed here")
	}
}

func TestADialThatIsCalledOff(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	w.verbs.dialed = func() (net.Conn, error) {
		cancel(errors.New("called off"))
		<-release
		return nil, fault.New(fault.Timeout, "the guest does not answer")
	}
	_, err := w.client.Dial(ctx, "dev", 22)
	if err == nil || err.Error() != "called off" {
		t.Errorf("got %v", err)
	}
	close(release)
}

func TestADialToNoDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	_, err := client.New(socket).Dial(t.Context(), "dev", 22)
	if !fault.Is(err, fault.Unavailable) || !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), `connect to "`+socket) {
		t.Errorf("got %v", err)
	}
}

// TestFollow holds that a follower sees the operation as it is and as it ends.
func TestFollow(t *testing.T) {
	w := newWorld(t)
	job := w.verbs.begin(vm.Caller{UID: os.Getuid()}, lifecycle.KindCreate, "dev")
	id := job.Snapshot().ID
	seen := 0
	last, err := w.client.Follow(t.Context(), id, func(o op.Operation) {
		seen++
		switch {
		case seen == 1:
			job.Stage("disk").End(nil)
		case len(o.Stages) == 1:
			job.Finish(fault.New(fault.Exhausted, "full").WithHint("delete something"))
		}
	})
	if err != nil || last.State != op.Failed || last.Error.Hint != "delete something" || len(last.Stages) != 1 {
		t.Errorf("last is %+v, %v", last, err)
	}
	again, err := w.client.Follow(t.Context(), id, func(op.Operation) {})
	if err != nil || again.State != op.Failed {
		t.Errorf("an ended operation: %+v, %v", again, err)
	}
	if _, err := w.client.Follow(t.Context(), "op-none", func(op.Operation) {}); !fault.Is(err, fault.NotFound) {
		t.Errorf("no operation: %v", err)
	}
}

// TestFollowThroughARestart ends the daemon while somebody follows; the next one knows how it ended.
func TestFollowThroughARestart(t *testing.T) {
	w := &world{t: t, socket: filepath.Join(t.TempDir(), "s"), tracker: op.NewTracker()}
	w.verbs = &verbs{tracker: w.tracker}
	w.client = client.New(w.socket)
	stop := w.serve()
	job := w.verbs.begin(vm.Caller{UID: os.Getuid()}, lifecycle.KindCreate, "dev")
	down := false
	last, err := w.client.Follow(t.Context(), job.Snapshot().ID, func(op.Operation) {
		if down {
			return
		}
		down = true
		stop()
		job.Finish(nil)
		w.serve()
	})
	if err != nil || last.State != op.Done {
		t.Errorf("last is %+v, %v", last, err)
	}
}

// TestFollowRevives ends the daemon for good while somebody follows who may start another one.
func TestFollowRevives(t *testing.T) {
	w := draft(t)
	stop := w.serve()
	job := w.verbs.begin(vm.Caller{UID: os.Getuid()}, lifecycle.KindCreate, "dev")
	revived := 0
	w.client.Revive = func(context.Context) error {
		revived++
		job.Finish(nil)
		w.serve()
		return nil
	}
	last, err := w.client.Follow(t.Context(), job.Snapshot().ID, func(op.Operation) {
		if revived == 0 {
			stop()
		}
	})
	if err != nil || last.State != op.Done || revived != 1 {
		t.Errorf("revived %d times, last is %+v, %v", revived, last, err)
	}
}

func TestFollowIsCalledOff(t *testing.T) {
	w := newWorld(t)
	job := w.verbs.begin(vm.Caller{UID: os.Getuid()}, lifecycle.KindCreate, "dev")
	ctx, cancel := context.WithCancelCause(t.Context())
	last, err := w.client.Follow(ctx, job.Snapshot().ID, func(op.Operation) { cancel(errors.New("detached")) })
	if err == nil || err.Error() != "detached" || last.State != op.Underway {
		t.Errorf("got %+v, %v", last, err)
	}
	job.Finish(nil)
}

func TestImport(t *testing.T) {
	tree := noise(8 << 20)
	w := newWorld(t)
	w.verbs.tree = make(chan received, 1)
	o, err := w.client.ImportImage(t.Context(), api.ImportImage{Name: "mine", KernelFrom: "debian:12", Source: "/a b.tar"}, bytes.NewReader(tree))
	if err != nil {
		t.Fatal(err)
	}
	last, err := w.client.Follow(t.Context(), o.ID, func(op.Operation) {})
	if err != nil || last.State != op.Done {
		t.Errorf("%+v, %v", last, err)
	}
	if got := <-w.verbs.tree; got.err != nil || !bytes.Equal(got.tar, tree) {
		t.Errorf("%d bytes arrived, %v", len(got.tar), got.err)
	}
	if asked := w.verbs.took(); asked != `import "mine" "/a b.tar" "debian:12"` {
		t.Errorf("asked %s", asked)
	}
}

// TestAnUploadThatBreaksOff fails the operation, whoever broke it: it must not pass for a whole tree.
func TestAnUploadThatBreaksOff(t *testing.T) {
	w := newWorld(t)
	w.verbs.tree = make(chan received, 1)
	t.Run("its source fails", func(t *testing.T) {
		r, send := io.Pipe()
		o, err := w.client.ImportImage(t.Context(), api.ImportImage{Name: "mine"}, r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = send.Write(noise(1 << 20))
		_ = send.CloseWithError(errors.New("disk gone"))
		last, err := w.client.Follow(t.Context(), o.ID, func(op.Operation) {})
		if got := <-w.verbs.tree; err != nil || last.State != op.Failed || got.err == nil {
			t.Errorf("%+v, %v, read error %v", last, err, got.err)
		}
	})
	t.Run("its client goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, send := io.Pipe()
		t.Cleanup(func() { _ = send.Close() })
		o, err := w.client.ImportImage(ctx, api.ImportImage{Name: "mine"}, r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = send.Write(noise(1 << 20))
		cancel()
		last, err := w.client.Follow(t.Context(), o.ID, func(op.Operation) {})
		if got := <-w.verbs.tree; err != nil || last.State != op.Failed || got.err == nil {
			t.Errorf("%+v, %v, read error %v", last, err, got.err)
		}
	})
}

// TestAnUploadThatIsInterrupted holds that a read does not wait for a client that sends no more.
func TestAnUploadThatIsInterrupted(t *testing.T) {
	w := newWorld(t)
	w.verbs.tree, w.verbs.interrupt = make(chan received, 1), true
	r, send := io.Pipe()
	t.Cleanup(func() { _ = send.Close() })
	o, err := w.client.ImportImage(t.Context(), api.ImportImage{Name: "mine"}, r)
	if err != nil {
		t.Fatal(err)
	}
	last, err := w.client.Follow(t.Context(), o.ID, func(op.Operation) {})
	if got := <-w.verbs.tree; err != nil || last.State != op.Failed || !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Errorf("%+v, %v, read error %v", last, err, got.err)
	}
}

// TestARefusedUpload holds that the reason arrives, however much was to be sent.
func TestARefusedUpload(t *testing.T) {
	w := newWorld(t)
	w.verbs.fail(fault.New(fault.AlreadyExists, "the name is taken"))
	for range 50 {
		_, err := w.client.ImportImage(t.Context(), api.ImportImage{Name: "mine"}, bytes.NewReader(noise(4<<20)))
		if !fault.Is(err, fault.AlreadyExists) {
			t.Fatalf("got %v", err)
		}
	}
}

// TestAnUploadThatWaitsToBeAsked is what curl does with more than 1 MiB: it sends nothing before the
// server has said that it wants it.
func TestAnUploadThatWaitsToBeAsked(t *testing.T) {
	for range 20 { // the handler says it, and maybe the operation that reads does too
		w := newWorld(t)
		w.verbs.tree = make(chan received, 1)
		conn := w.raw("POST /v1/images/import?name=mine HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		answer := bufio.NewReader(conn)
		line, err := answer.ReadString('\n')
		if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("the server says %q, %v", line, err)
		}
		if _, err := io.WriteString(conn, "tree"); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(answer)
		if err != nil || !strings.Contains(string(rest), "HTTP/1.1 202 Accepted\r\n") {
			t.Errorf("then %q, %v", rest, err)
		}
		if got := <-w.verbs.tree; got.err != nil || string(got.tar) != "tree" {
			t.Errorf("%q arrived, %v", got.tar, got.err)
		}
	}
}

// What is handed over is the guest's own connection, which the daemon is not needed for any more.
func TestSSHIsHandedOver(t *testing.T) {
	w := newWorld(t)
	far, guest := pair(t)
	w.verbs.dialed = func() (net.Conn, error) { return far, nil }
	f, err := w.client.SSH(t.Context(), "dev")
	if err != nil {
		t.Fatal(err)
	}
	here, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if asked := w.verbs.took(); asked != `ssh "dev"` {
		t.Errorf("asked %q", asked)
	}
	if _, err := io.WriteString(guest, "SSH-2.0-x"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 9)
	if _, err := io.ReadFull(here, got); err != nil || string(got) != "SSH-2.0-x" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := here.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the daemon has it still: %v", err)
	}
}

// A socket that is forwarded from another machine loses what comes with the bytes.
func TestSSHOverASocketThatHandsNothingOver(t *testing.T) {
	w := newWorld(t)
	far, _ := pair(t)
	w.verbs.dialed = func() (net.Conn, error) { return far, nil }
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		near, err := l.Accept()
		if err != nil {
			return
		}
		defer near.Close()
		var d net.Dialer
		there, err := d.DialContext(t.Context(), "unix", w.socket)
		if err != nil {
			return
		}
		defer there.Close()
		go func() { _, _ = io.Copy(there, near) }()
		_, _ = io.Copy(near, there)
	}()
	_, err = client.New(l.Addr().String()).SSH(t.Context(), "dev")
	<-done
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.From(err).Hint, "forwarded from another machine") {
		t.Errorf("got %v", err)
	}
}
