// Package relay copies between two connections, each way's end for itself: `… | ssh vm cat` ends because of it.
package relay

import (
	"errors"
	"io"
	"sync"

	"banger/internal/agentproto"
)

// Conn is a connection that can be closed for writing alone.
type Conn interface {
	io.Reader
	writeCloser
	io.Closer
}

type writeCloser interface {
	io.Writer
	CloseWrite() error
}

// Both copies both ways until both have ended, or one fails: then abort is called, which is to end both connections. It
// closes nothing itself.
func Both(a, b Conn, abort func()) error {
	var wg sync.WaitGroup
	var there, back error
	wg.Go(func() {
		if there = pass(b, a); there != nil {
			abort()
		}
	})
	wg.Go(func() {
		if back = pass(a, b); back != nil {
			abort()
		}
	})
	wg.Wait()
	return errors.Join(there, back)
}

// pass copies one way and passes its end on.
func pass(dst writeCloser, src io.Reader) error {
	// Hidden behind plain interfaces, or io.Copy would have the connection choose a buffer.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, agentproto.MaxChunk))
	if err != nil {
		return err
	}
	return dst.CloseWrite()
}
