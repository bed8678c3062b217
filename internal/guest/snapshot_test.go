package guest_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/agent"
	"banger/internal/agentproto"
	"banger/internal/fault"
	"banger/internal/guest"
	"banger/internal/guest/guesttest"
)

// held is a guest that is ready, and then fit for a snapshot.
func held(t *testing.T) (*host, *guesttest.Guest) {
	t.Helper()
	h := open(t, config)
	g := boot(t, h)
	h.expect(t, bootEvents(0)...)
	if err := h.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h, g
}

// restored is the host's end of a guest that comes out of a snapshot where h's was.
func restored(t *testing.T, h *host, log *slog.Logger) *host {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	r := &host{dir: h.dir, events: make(chan guest.Event, 100)}
	var err error
	if r.Guest, err = guest.OpenRestored(h.dir, func(e guest.Event) { r.events <- e }, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// quietFor sees to it that the guest says nothing for longer than it takes to dial again.
func (h *host) quietFor(t *testing.T) {
	t.Helper()
	select {
	case e := <-h.events:
		t.Fatalf("event %q", show(e))
	case <-time.After(200 * time.Millisecond):
	}
}

func TestAHeldGuestDialsOnceItIsAsked(t *testing.T) {
	h, g := held(t)
	if d := cmp.Diff([]string{"sync"}, g.Changes()); d != "" {
		t.Error(d)
	}
	g.Terminate() // there is nobody to tell
	h.quietFor(t)
	if _, err := h.SetClock(t.Context()); err != nil {
		t.Error(err)
	}
	h.expect(t, "hello resident", "ready 0")
}

// A guest that was forgotten comes back by itself.
func TestAHoldEnds(t *testing.T) {
	h := open(t, config)
	boot(t, h)
	h.expect(t, bootEvents(0)...)
	c := h.dial(t, "v.sock")
	if _, err := io.WriteString(c, "CONNECT 1023\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	if err := agentproto.WriteFrame(c, agentproto.Request{Op: agentproto.OpHold, Hold: &agentproto.Hold{For: time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	h.expect(t, "hello resident", "ready 0")
}

// dial connects to a socket of a guest's device.
func (h *host) dial(t *testing.T, name string) net.Conn {
	t.Helper()
	d, err := os.Open(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestARestoredGuestBecomesAnother(t *testing.T) {
	h, g := held(t)
	before := residentHello(t, h)
	g.SetBack(time.Hour)
	r := restored(t, h, quiet())
	if err := r.Adopt(t.Context(), agentproto.GuestConfig{Hostname: "other", Services: []agentproto.Service{{Name: "echo", Port: echo(t)}}}); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "hello resident", "ready 1")
	if d := cmp.Diff([]string{"sync", "reseed with 64 bytes", "become other"}, g.Changes()); d != "" {
		t.Error(d)
	}
	if behind := g.Behind().Abs(); behind > agentproto.ClockTolerance {
		t.Errorf("its clock is %v behind", behind)
	}

	// Nobody else of the guest, and no other guest of the same snapshot, is let in.
	refused(t, r.dial(t, "v.sock_1024"), before, "this is not the agent that was left in the guest")
	refused(t, r.dial(t, "v.sock_1024"), agentproto.Hello{Phase: agentproto.PhaseBoot}, "this VM has booted already")

	// The supervisor's environment holds what the guest booted with.
	if err := g.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "hello resident", "ready 1")
}

// An agent whose old token was refused meanwhile does not wait out its pause.
func TestARefusedGuestIsAdopted(t *testing.T) {
	h := open(t, config)
	var said lockedBuffer
	g, err := guesttest.Boot(t.Context(), h.dir, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	h.expect(t, bootEvents(0)...)
	r := restored(t, h, quiet())
	for !strings.Contains(said.String(), agent.ErrRefused.Error()) {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("it was let in with the old token")
		}
	}
	if err := r.Adopt(t.Context(), config()); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "hello resident", "ready 0")
}

// What is not in effect and leaves the guest usable is told in the daemon's log, cleaned.
func TestAGuestIsAdoptedInPart(t *testing.T) {
	h, _ := held(t)
	var said lockedBuffer
	r := restored(t, h, slog.New(slog.NewTextHandler(&said, nil)))
	if err := r.Adopt(t.Context(), agentproto.GuestConfig{}); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "hello resident", "ready 0")
	if want := `the guest took its identity in part`; !strings.Contains(said.String(), want) || strings.Contains(said.String(), "\x1b") {
		t.Errorf("the log says %q", said.String())
	}
}

// TestABadAdoption is refused by a real agent, before anything is changed.
func TestABadAdoption(t *testing.T) {
	h, g := held(t)
	before := g.Changes()
	err := h.Adopt(t.Context(), agentproto.GuestConfig{Network: &agentproto.Network{MAC: "eth0\x1b[2J"}})
	if want := `the guest answered: address eth0\x1b[2J: invalid MAC address`; !fault.Is(err, fault.Unavailable) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if d := cmp.Diff(before, g.Changes()); d != "" {
		t.Errorf("something was changed: %s", d)
	}
}

// A restored guest's vsock needs a moment: connections end before they are answered, or before their answer.
func TestAdoptAsksAgain(t *testing.T) {
	h := open(t, config)
	tries := make(chan func(net.Conn), 3)
	tries <- func(net.Conn) {}
	tries <- func(c net.Conn) { // it hears, and its answer is lost
		var req agentproto.Request
		answer("")(c)
		_, _ = io.WriteString(c, "OK 5\n")
		_ = agentproto.ReadFrame(c, &req, agentproto.MaxFromHost)
	}
	tries <- answer("OK 5\n" + frame(`{"adopted":{}}`))
	serveSocket(t, h.dir, func(c net.Conn) { (<-tries)(c) })
	if err := h.Adopt(t.Context(), config()); err != nil {
		t.Error(err)
	}
	if len(tries) > 0 {
		t.Errorf("%d tries are left", len(tries))
	}
}

func frame(body string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + body
}

// A guest that does not know the requests is told from one that needs a moment.
func TestAnAgentWithoutSnapshots(t *testing.T) {
	h := open(t, config)
	serveSocket(t, h.dir, answer("OK 5\n"+frame(`{"error":"this agent knows no request"}`)))
	for _, err := range []error{h.Adopt(t.Context(), config()), h.Hold(t.Context())} {
		if want := "the guest answered: this agent knows no request"; !fault.Is(err, fault.Unavailable) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A guest that never is itself again is given up when its host has seen enough.
func TestAdoptIsCalledOff(t *testing.T) {
	h := open(t, config)
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	serveSocket(t, h.dir, func(net.Conn) {
		if tries++; tries == 3 {
			cancel()
		}
	})
	err := h.Adopt(ctx, config())
	if want := "called off while the guest's agent was being asked: context canceled"; !fault.Is(err, fault.Canceled) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
