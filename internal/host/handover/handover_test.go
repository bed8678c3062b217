package handover

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

func take(t *testing.T) *Sockets {
	t.Helper()
	s, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	if _, still := os.LookupEnv(handed); still {
		t.Error("it is left to children")
	}
	return s
}

// next is the build after this one, in the same process.
func next(t *testing.T, s *Sockets) *Sockets {
	t.Helper()
	h, err := s.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range s.open {
		_ = f.(io.Closer).Close()
	}
	env, err := h.Environment()
	if err != nil {
		t.Fatal(err)
	}
	// Executed, the files would be gone and their descriptors the next build's alone. Here it gets its own.
	name, text, _ := strings.Cut(env[0], "=")
	var fds map[string]int
	if err := json.Unmarshal([]byte(text), &fds); err != nil || name != handed {
		t.Fatal(env, err)
	}
	for name, f := range h.files {
		if fds[name], err = unix.Dup(fds[name]); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	doc, err := json.Marshal(fds)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(handed, string(doc))
	return take(t)
}

func TestWhatArrivesBetweenTwoBuildsIsAnswered(t *testing.T) {
	old := take(t)
	l, err := old.Listen(t.Context(), "door 127.0.0.1:1=2;3", net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := old.ListenPacket(t.Context(), "dns", net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := next(t, old)

	var d net.Dialer
	stream, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	datagram, err := d.DialContext(t.Context(), "udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	if _, err := datagram.Write([]byte("asked between")); err != nil {
		t.Fatal(err)
	}

	newer, err := h.Listen(t.Context(), "door 127.0.0.1:1=2;3", net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	conn, err := newer.Accept()
	if err != nil || newer.Addr().String() != l.Addr().String() || conn.RemoteAddr().String() != stream.LocalAddr().String() {
		t.Errorf("%v accepts %v, %v", newer.Addr(), conn, err)
	}
	_ = conn.Close()
	packets := h.PacketConn("dns")
	defer packets.Close()
	text := make([]byte, 100)
	n, _, err := packets.ReadFrom(text)
	if err != nil || string(text[:n]) != "asked between" {
		t.Errorf("%q, %v", text[:n], err)
	}
}

func TestWhatIsNotAskedForIsClosed(t *testing.T) {
	old := take(t)
	l, err := old.Listen(t.Context(), "a", net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := old.Listen(t.Context(), "b", net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	h := next(t, old)
	if len(h.left) != 1 || h.Listener("b") != nil || h.Listener("other") != nil || h.PacketConn("other") != nil {
		t.Errorf("it has %v", h.left)
	}
	h.CloseRest()
	var d net.Dialer
	if c, err := d.DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("somebody listens still")
	}
	if h.Listener("a") != nil {
		t.Error("it has one that is closed")
	}
}

func TestANameOfAnotherKind(t *testing.T) {
	old := take(t)
	if _, err := old.Listen(t.Context(), "a", net.ListenConfig{}, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	h := next(t, old)
	if c := h.PacketConn("a"); c != nil {
		t.Errorf("a listener is %v", c)
	}
	t.Setenv(handed, `{"gone":9999,"bad":-1}`)
	h = take(t)
	if l := h.Listener("gone"); l != nil {
		t.Errorf("a descriptor that is not open is %v", l)
	}
	t.Setenv(handed, "x")
	if s, err := Take(); s != nil || !fault.Is(err, fault.Internal) || fault.From(err).Hint == "" {
		t.Errorf("%v, %v", s, err)
	}
}

// TestATakenNameOutlivesItsFormerHolder: the first is closed after the second was made under its name.
func TestATakenNameOutlivesItsFormerHolder(t *testing.T) {
	s := take(t)
	first, err := s.Listen(t.Context(), "a", net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Listen(t.Context(), "a", net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if len(s.open) != 1 {
		t.Errorf("it has %v", s.open)
	}
}
