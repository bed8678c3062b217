// Package op holds operations: long jobs with an id, stages and timings, begun by one call and
// followed by another.
package op

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"banger/internal/fault"
)

// ID names an operation: "op-" and 10 hexadecimal digits.
type ID string

// NewID returns a random id.
func NewID() ID {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
	return ID("op-" + hex.EncodeToString(b[:]))
}

// Operation is one job as a client sees it.
type Operation struct {
	ID      ID           `json:"id"`
	Kind    string       `json:"kind"`    // "vm.create", "image.pull"
	Subject string       `json:"subject"` // id of what it works on; a VM's or an image's
	Name    string       `json:"name"`    // the subject's name, for people
	Owner   int          `json:"owner"`   // uid of who began it
	State   State        `json:"state"`
	Stages  []Stage      `json:"stages"`
	Error   *fault.Error `json:"error,omitempty"`
	// Made are the ids of VMs that came of it, beside its subject.
	Made []string `json:"made,omitempty"`
	// Warnings are what may go wrong one day, one line each, though this did not.
	Warnings []string  `json:"warnings,omitempty"`
	Created  time.Time `json:"created"`
	Ended    time.Time `json:"ended,omitzero"`
}

// State of an operation.
type State string

// The states.
const (
	Underway State = "running"
	Done     State = "done"
	Failed   State = "failed"
	Canceled State = "canceled"
)

// Ended reports whether the state is final.
func (s State) Ended() bool { return s != Underway }

// Stage is one step of an operation. Stages may overlap.
type Stage struct {
	Name     string        `json:"name"`
	Detail   string        `json:"detail,omitempty"` // latest progress, one line
	Started  time.Time     `json:"started"`
	Duration time.Duration `json:"duration,omitempty"` // nanoseconds; zero while it runs
	Done     bool          `json:"done"`               // it runs no more, however it ended
	Outcome  State         `json:"outcome,omitempty"`  // how it ended; empty while it runs
	Error    string        `json:"error,omitempty"`    // why it did not end well, one line
}

// ended returns the stage as it stands once it has ended with err, nil for well.
func (s Stage) ended(err error, took time.Duration) Stage {
	s.Duration, s.Done, s.Outcome = took, true, outcome(err)
	if err != nil {
		s.Error = fault.From(err).Msg
	}
	return s
}

// outcome is the state of what has ended with err. A stage that ends because another failed was called off.
func outcome(err error) State {
	switch {
	case err == nil:
		return Done
	case fault.Is(err, fault.Canceled), errors.Is(err, context.Canceled):
		return Canceled
	default:
		return Failed
	}
}
