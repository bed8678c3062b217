package fdpass_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"banger/internal/fdpass"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return here.(*net.UnixConn), there.(*net.UnixConn)
}

// A file comes with the byte that carries it, though a buffer has read both together with what went before.
func TestAFileCrosses(t *testing.T) {
	a, b := pair(t)
	sent, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("before\n")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fdpass.Send(a, sent), sent.Close()); err != nil {
		t.Fatal(err)
	}
	r := &fdpass.Reader{Conn: b}
	br := bufio.NewReader(r)
	if line, err := br.ReadString('\n'); err != nil || line != "before\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := br.ReadByte(); err != nil {
		t.Fatal(err)
	}
	got, err := r.Take()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.WriteString("written here"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(sent.Name()); err != nil || string(text) != "written here" {
		t.Errorf("got %q, %v", text, err)
	}
	if err := got.Close(); err != nil {
		t.Error(err)
	}
}

func TestNoFileComes(t *testing.T) {
	a, b := pair(t)
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	r := &fdpass.Reader{Conn: b}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Take(); !errors.Is(err, fdpass.ErrNone) {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatNobodyTakesIsClosed(t *testing.T) {
	a, b := pair(t)
	near, far := pair(t)
	for range 2 { // the second closes the first
		if err := fdpass.Send(a, far); err != nil {
			t.Fatal(err)
		}
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	r := &fdpass.Reader{Conn: b}
	for range 2 {
		if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it is open still: %v", err)
	}
}
