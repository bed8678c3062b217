package agentproto

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// MaxChunk bounds one chunk of a Stream, in bytes.
const MaxChunk = 32 << 10

// Errors of a Stream.
var (
	ErrChunkTooLarge = errors.New("chunk is larger than the protocol allows")
	ErrWriteClosed   = errors.New("write after the end of the stream was announced")
)

// Stream carries a TCP connection over a request connection. Each way is a sequence of chunks, a
// 4-byte big-endian length and that many bytes, and ends with a chunk of length zero.
//
// The chunks are needed because Firecracker's vsock device has no half-close: when the host's end
// shuts down its writing, the device resets both ways, and a guest's shutdown of its own writing
// never reaches the host. They also tell an orderly end (io.EOF) from a lost connection
// (io.ErrUnexpectedEOF).
//
// After both ways have ended the host closes first. The device drops what the host has not read two
// seconds after a guest closed.
type Stream struct {
	net.Conn
	in    *bufio.Reader
	left  int // bytes of the current chunk that are still to be read
	ended bool

	mu     sync.Mutex // held while a chunk is written
	out    []byte
	closed bool
}

// NewStream begins a stream on a connection whose Response has been exchanged.
func NewStream(c net.Conn) *Stream {
	return &Stream{Conn: c, in: bufio.NewReaderSize(c, 4<<10)}
}

// Read implements net.Conn. It returns io.EOF when the peer announced the end of its way.
func (s *Stream) Read(p []byte) (int, error) {
	if s.ended {
		return 0, io.EOF
	}
	if s.left == 0 {
		// Peek, so that a read which ends by its deadline leaves the length whole for the next.
		head, err := s.in.Peek(4)
		if err != nil {
			return 0, lost(err)
		}
		n := binary.BigEndian.Uint32(head)
		if n > MaxChunk {
			return 0, ErrChunkTooLarge
		}
		if _, err := s.in.Discard(4); err != nil {
			return 0, lost(err)
		}
		if n == 0 {
			s.ended = true
			return 0, io.EOF
		}
		s.left = int(n)
	}
	n, err := s.in.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, lost(err)
}

// lost keeps the connection's own end from being taken for the stream's.
func lost(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write implements net.Conn.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrWriteClosed
	}
	done := 0
	for done < len(p) {
		n := min(len(p)-done, MaxChunk)
		// One write for length and bytes: on vsock each is a packet of its own.
		s.out = binary.BigEndian.AppendUint32(s.out[:0], uint32(n))
		s.out = append(s.out, p[done:done+n]...)
		if _, err := s.Conn.Write(s.out); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// CloseWrite announces the end of this side's way. The other way goes on.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	_, err := s.Conn.Write(make([]byte, 4))
	return err
}
