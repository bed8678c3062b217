// Package fault gives every error that a person may meet the same shape: what failed, on what,
// why, what to do about it, and where the full story is logged.
//
// It imports the standard library only, so that the innermost packages can use it.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of failure happened. It crosses the API unchanged; the HTTP status
// (package api) and the exit status (package cli) are derived from it in one table each.
type Code string

// The codes, from the caller's mistakes to ours.
const (
	Invalid       Code = "invalid"        // the request itself is wrong
	NotFound      Code = "not_found"      // no such object, or not the caller's
	AlreadyExists Code = "already_exists" // the name is taken
	Ambiguous     Code = "ambiguous"      // a selector matches several objects
	WrongState    Code = "wrong_state"    // the object's state does not allow it
	InUse         Code = "in_use"         // another object needs it
	Forbidden     Code = "forbidden"      // the caller may not
	Requirement   Code = "requirement"    // the host lacks something: KVM, a program, a version
	Exhausted     Code = "exhausted"      // no disk space, memory or addresses left
	Unavailable   Code = "unavailable"    // the daemon or the guest does not answer
	Timeout       Code = "timeout"        // it did not happen in time
	Canceled      Code = "canceled"       // someone called it off
	Incompatible  Code = "incompatible"   // versions or architectures that do not go together
	GuestFailed   Code = "guest_failed"   // the guest broke: panic, no init, a failed boot
	Corrupt       Code = "corrupt"        // stored data is damaged
	Internal      Code = "internal"       // a fault of banger itself
)

// Codes lists every code, so that tables over them can be checked for gaps.
func Codes() []Code {
	return []Code{
		Invalid, NotFound, AlreadyExists, Ambiguous, WrongState, InUse, Forbidden, Requirement,
		Exhausted, Unavailable, Timeout, Canceled, Incompatible, GuestFailed, Corrupt, Internal,
	}
}

// Error is a failure as a person should read it. It crosses the API as JSON, all but its cause.
type Error struct {
	Code    Code     `json:"code"`              // kind of failure; never empty
	Op      string   `json:"op,omitempty"`      // what was tried, as the user would say it: "create VM"
	Subject string   `json:"subject,omitempty"` // what it was tried on: a VM's name, a path, an image
	Stage   string   `json:"stage,omitempty"`   // of the operation that failed, where it came to one
	Msg     string   `json:"msg"`               // why it failed, one line, no trailing period
	Hint    string   `json:"hint,omitempty"`    // what to do about it, one line; may be empty
	Detail  string   `json:"detail,omitempty"`  // a few raw lines that explain it, such as a console's tail; may be empty
	Logs    []string `json:"logs,omitempty"`    // files that hold the full story
	Err     error    `json:"-"`                 // the cause, for errors.Is and errors.As
}

// New returns an error with a code and a formatted message. A %w in format sets the cause.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// WithOp returns a copy that says what was tried on what.
func (e *Error) WithOp(op, subject string) *Error {
	c := *e
	c.Op, c.Subject = op, subject
	return &c
}

// InOp returns a copy that says what was tried on what, unless the error says it already.
func (e *Error) InOp(op, subject string) *Error {
	if e.Op != "" {
		return e
	}
	return e.WithOp(op, subject)
}

// InStage returns a copy that says in which stage of an operation it happened.
func (e *Error) InStage(stage string) *Error {
	c := *e
	c.Stage = stage
	return &c
}

// WithHint returns a copy that says what to do.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithLogs returns a copy that names the files holding the full story.
func (e *Error) WithLogs(paths ...string) *Error {
	c := *e
	c.Logs = append(append([]string(nil), e.Logs...), paths...)
	return &c
}

// WithDetail returns a copy that carries a few raw lines.
func (e *Error) WithDetail(detail string) *Error {
	c := *e
	c.Detail = detail
	return &c
}

// Error renders op, subject and message on one line: `create VM "dev": name is taken`.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Subject != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%q", e.Subject)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// From finds the outermost *Error in err's chain; an error without one becomes Internal.
// From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Msg: err.Error(), Err: err}
}

// CodeOf returns the code of the outermost *Error in err's chain, Internal for any other error
// and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return From(err).Code
}

// Is reports whether err carries the code.
func Is(err error, code Code) bool { return err != nil && CodeOf(err) == code }
