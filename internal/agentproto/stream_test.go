package agentproto_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"banger/internal/agentproto"
)

func pair(t *testing.T) (a, b *agentproto.Stream, rawA, rawB net.Conn) {
	t.Helper()
	rawA, rawB = net.Pipe()
	t.Cleanup(func() { rawA.Close(); rawB.Close() })
	return agentproto.NewStream(rawA), agentproto.NewStream(rawB), rawA, rawB
}

func TestStreamCarriesBothWaysAndTheirEnds(t *testing.T) {
	a, b, _, _ := pair(t)
	up := bytes.Repeat([]byte("0123456789abcdef"), 5*agentproto.MaxChunk/16+1)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Write(up)
		sent <- errors.Join(err, a.CloseWrite(), a.CloseWrite())
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, up) {
		t.Fatalf("read %d of %d bytes, error %v", len(got), len(up), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, agentproto.ErrWriteClosed) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	// The other way is still open.
	go func() {
		_, err := b.Write([]byte("down"))
		sent <- errors.Join(err, b.CloseWrite())
	}()
	got, err = io.ReadAll(a)
	if err != nil || string(got) != "down" {
		t.Errorf("read %q, error %v", got, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read after the end: %v", err)
	}
}

func TestStreamTellsALossFromAnEnd(t *testing.T) {
	for name, cut := range map[string][]byte{
		"between chunks": {0, 0, 0, 1, 'x'}, "in a length": {0, 0}, "in a chunk": {0, 0, 0, 9, 'x'}, "at once": {},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _, raw := pair(t)
			go func() {
				_, _ = raw.Write(cut) // the reader sees how far it came
				raw.Close()
			}()
			if _, err := io.ReadAll(a); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
			}
		})
	}
}

func TestStreamRefusesLargeChunks(t *testing.T) {
	a, _, _, raw := pair(t)
	go func() { _, _ = raw.Write([]byte{0, 0, 0x80, 1}) }() // the reader may be done before
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, agentproto.ErrChunkTooLarge) {
		t.Errorf("got %v", err)
	}
}

// A read that ends by its deadline in the middle of a length must not lose that part.
func TestStreamReadDeadlineKeepsTheLength(t *testing.T) {
	a, _, _, raw := pair(t)
	parts := make(chan []byte)
	go func() {
		for p := range parts {
			_, _ = raw.Write(p) // a failure shows as a wrong read
		}
	}()
	defer close(parts)
	if err := a.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	parts <- []byte{0, 0}
	if _, err := a.Read(make([]byte, 4)); err == nil {
		t.Fatal("half a length was enough")
	}
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	parts <- []byte{0, 2, 'o', 'k'}
	got := make([]byte, 2)
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "ok" {
		t.Errorf("got %q, error %v", got, err)
	}
}
