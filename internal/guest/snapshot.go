package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
)

// holdFor is how long a guest dials nobody, by its own clock: until it is paused, and from when it runs on, here or as
// another, until it is asked for something.
const holdFor = 30 * time.Second

// Hold makes the guest fit for a snapshot: its disks are written, its control connection is closed and none of its packets
// is under way. Any other request ends that, so the guest is to be asked nothing until it is paused; it is told the
// time once it runs on, and dials again.
func (g *Guest) Hold(ctx context.Context) error {
	conn, _, err := g.request(ctx, agentproto.Request{Op: agentproto.OpHold, Hold: &agentproto.Hold{For: holdFor}})
	if err != nil {
		return err
	}
	defer conn.Close()
	// The agent closes first: were it us, its answer to that would be under way.
	if err := conn.SetReadDeadline(time.Now().Add(requestBudget)); err != nil {
		return g.blame(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return g.blame(ctx, err)
	}
	return nil
}

const (
	entropyBytes = 64
	adoptPause   = 3 * time.Millisecond // between two tries while a guest's vsock is not itself yet
	deafBudget   = 15 * time.Second     // for it to be so
)

// Adopt gives a guest that was restored from a snapshot the identity of this VM. It returns once all of that is in effect.
func (g *Guest) Adopt(ctx context.Context, config agentproto.GuestConfig) error {
	entropy := make([]byte, entropyBytes)
	_, _ = rand.Read(entropy) // never fails, see its documentation
	for begun := time.Now(); ; {
		resp, err := g.ask(ctx, agentproto.Request{Op: agentproto.OpAdopt, Adopt: &agentproto.Adopt{Config: config, Token: g.token, Entropy: entropy}})
		switch {
		case err == nil:
			if resp.Adopted != nil && resp.Adopted.Warning != "" {
				g.log.Warn("the guest took its identity in part", "dir", g.dir.Name(), "error", Clean(resp.Adopted.Warning, maxMsg))
			}
			return nil
		case !deaf(err) || time.Since(begun) > deafBudget || ctx.Err() != nil || !g.pause(adoptPause):
			return err
		}
	}
}

// deaf reports whether an error is what a restored guest answers with until its kernel has reset the vsock device: then it
// has heard nothing, or its answer is lost. Asking again is harmless.
func deaf(err error) bool {
	for _, is := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
