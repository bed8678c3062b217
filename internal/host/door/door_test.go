package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/handover"
	"banger/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = vm.ID("0123456789ab")

// guest echoes what it is sent, in capitals, after its port and only once all of it is there.
func guest(_ context.Context, _ vm.ID, port int) (net.Conn, error) {
	if port == 81 {
		return nil, errors.New("connection refused")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	go func() {
		defer c.Close()
		text, err := io.ReadAll(c)
		if err == nil {
			fmt.Fprintf(c, "%d %s", port, strings.ToUpper(string(text)))
		}
	}()
	return far, nil
}

func newDoors(t *testing.T) *Doors {
	t.Helper()
	s, err := handover.Take()
	if err != nil {
		t.Fatal(err)
	}
	ds := New(s, guest, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { ds.Shut(0) })
	return ds
}

// free is a door on a port that is free.
func free(t *testing.T, ds *Doors, addr string, port uint16) vm.Door {
	t.Helper()
	a := netip.MustParseAddr(addr)
	n, err := ds.Free(a)
	if err != nil {
		t.Fatal(err)
	}
	return vm.Door{Listen: netip.AddrPortFrom(a, n), Port: port}
}

func connect(t *testing.T, d vm.Door) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", d.Listen.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// say says something and that it is all, and returns what comes back.
func say(t *testing.T, c *net.TCPConn) string {
	t.Helper()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func opens(t *testing.T, closed map[vm.Door]error) {
	t.Helper()
	if len(closed) > 0 {
		t.Fatal(closed)
	}
}

func TestADoorLeadsIntoTheGuest(t *testing.T) {
	ds := newDoors(t)
	four, six, nowhere := free(t, ds, "127.0.0.1", 80), free(t, ds, "::1", 90), free(t, ds, "127.0.0.1", 81)
	opens(t, ds.Open(t.Context(), id, vm.Doors{four, six, nowhere}))
	if got := say(t, connect(t, four)); got != "80 HELLO" {
		t.Error(got)
	}
	if got := say(t, connect(t, six)); got != "90 HELLO" {
		t.Error(got)
	}
	if _, err := connect(t, nowhere).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what the guest refuses ends with %v", err)
	}
	if got := ds.Found(); len(got) != 1 || got[0] != id || len(ds.Closed(id)) != 0 {
		t.Error(got, ds.Closed(id))
	}
}

func TestDoorsChange(t *testing.T) {
	ds := newDoors(t)
	a, b := free(t, ds, "127.0.0.1", 80), free(t, ds, "127.0.0.1", 90)
	opens(t, ds.Open(t.Context(), id, vm.Doors{a, b}))
	held, cut := connect(t, a), connect(t, b)
	for _, c := range []*net.TCPConn{held, cut} {
		if _, err := io.WriteString(c, "oh "); err != nil {
			t.Fatal(err)
		}
	}
	a.Port = 8080
	wide := vm.Door{Listen: netip.AddrPortFrom(netip.IPv4Unspecified(), b.Listen.Port()), Port: 90}
	opens(t, ds.Open(t.Context(), id, vm.Doors{a, wide}))
	if got := say(t, held); got != "80 OH HELLO" {
		t.Errorf("what is connected hears %q", got)
	}
	if got := say(t, connect(t, a)); got != "8080 HELLO" {
		t.Error(got)
	}
	if _, err := cut.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what came in by a door that is closed ends with %v", err)
	}
	must(t, ds.Close(t.Context(), id))
	if _, err := net.Dial("tcp", a.Listen.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed door answers %v", err)
	}
	if len(ds.Found()) != 0 {
		t.Error(ds.Found())
	}
	must(t, ds.Close(t.Context(), id))
}

func TestAPortThatIsTaken(t *testing.T) {
	ds := newDoors(t)
	for _, at := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		d := free(t, ds, at, 80)
		l, err := listen(t.Context(), d.Listen)
		must(t, err)
		for _, err := range []error{ds.Check(t.Context(), id, d), ds.Open(t.Context(), id, vm.Doors{d})[d], ds.Closed(id)[d]} {
			want := fmt.Sprintf("process %d (door.test) listens there", os.Getpid())
			if !fault.Is(err, fault.InUse) || fault.From(err).Msg != want || fault.From(err).Hint == "" {
				t.Errorf("%s: %v, want %s", d, err, want)
			}
		}
		must(t, l.Close())
		must(t, ds.Check(t.Context(), id, d))
		opens(t, ds.Open(t.Context(), id, vm.Doors{d}))
		must(t, ds.Check(t.Context(), id, d)) // it is ours
		if len(ds.Closed(id)) != 0 {
			t.Error(ds.Closed(id))
		}
	}
	away := vm.Door{Listen: netip.MustParseAddrPort("203.0.113.7:80"), Port: 80}
	if err := ds.Check(t.Context(), id, away); fault.From(err).Msg != "this host has no address 203.0.113.7" {
		t.Error(err)
	}
	if _, err := ds.Free(away.Listen.Addr()); fault.From(err).Msg != "this host has no address 203.0.113.7" {
		t.Error(err)
	}
}

func TestRoot(t *testing.T) {
	if got := Root(); got < 0 || got > 1024 {
		t.Error(got)
	}
}

// TestOneDoorKeepsNoOtherClosed opens what can be.
func TestOneDoorKeepsNoOtherClosed(t *testing.T) {
	ds := newDoors(t)
	a, b := free(t, ds, "127.0.0.1", 80), free(t, ds, "127.0.0.1", 90)
	l, err := listen(t.Context(), a.Listen)
	must(t, err)
	defer l.Close()
	if closed := ds.Open(t.Context(), id, vm.Doors{a, b}); len(closed) != 1 || !fault.Is(closed[a], fault.InUse) {
		t.Error(closed)
	}
	if got := say(t, connect(t, b)); got != "90 HELLO" {
		t.Error(got)
	}
}

func TestTooManyConnections(t *testing.T) {
	ds := newDoors(t)
	d := free(t, ds, "127.0.0.1", 80)
	opens(t, ds.Open(t.Context(), id, vm.Doors{d}))
	for range MaxConnections {
		connect(t, d)
	}
	c, err := net.Dial("tcp", d.Listen.String())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one too many ends with %v", err)
	}
}

// TestTheNextBuildGoesOn hands doors over: what connects meanwhile is answered, and what is under way ends in peace.
func TestTheNextBuildGoesOn(t *testing.T) {
	ds := newDoors(t)
	d := free(t, ds, "127.0.0.1", 80)
	opens(t, ds.Open(t.Context(), id, vm.Doors{d}))
	before := connect(t, d)
	for len(ds.vms[id].tokens) == 0 && t.Context().Err() == nil { // until it is taken in
		runtime.Gosched()
	}
	h, err := ds.sockets.HandOver()
	must(t, err)
	env, err := h.Environment()
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ds.Shut(10 * time.Second)
	}()
	if got := say(t, before); got != "80 HELLO" {
		t.Error(got)
	}
	<-done
	between := connect(t, d)
	late := free(t, newDoors(t), "127.0.0.1", 1)
	if closed := ds.Open(t.Context(), id, vm.Doors{late}); !fault.Is(closed[late], fault.Unavailable) {
		t.Errorf("a daemon that ends opens a door: %v", closed)
	}

	// Executed, the files would be gone and their descriptors the next build's alone. Here it gets its own.
	name, text, _ := strings.Cut(env[0], "=")
	var fds map[string]int
	must(t, json.Unmarshal([]byte(text), &fds))
	for n, fd := range fds {
		fds[n], err = unix.Dup(fd)
		must(t, err)
	}
	doc, err := json.Marshal(fds)
	must(t, err)
	t.Setenv(name, string(doc))
	next := newDoors(t)
	opens(t, next.Open(t.Context(), id, vm.Doors{d}))
	if got := say(t, between); got != "80 HELLO" {
		t.Error(got)
	}
	_ = h
}
