// Package exit holds the one table that maps kinds of failure to exit statuses, so that a script can
// tell them apart without reading text.
package exit

import (
	"errors"
	"fmt"
	"strings"

	"banger/internal/fault"
)

// OK is the status of a command that did what it was asked.
const OK = 0

// Status is an error that carries only an exit status: everything has been said already.
type Status int

// Error implements error.
func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Of returns the exit status for err: 0 for nil, a Status as it is, else the status of its fault code.
func Of(err error) int {
	if err == nil {
		return OK
	}
	if s, ok := errors.AsType[Status](err); ok {
		return int(s)
	}
	return ofCode(fault.CodeOf(err))
}

// Common returns what the failures among errs come to: their status where all have the same, else 1. It is nil
// where there is none.
func Common(errs []error) error {
	common := OK
	for _, err := range errs {
		switch status := Of(err); {
		case status == OK || status == common:
		case common == OK:
			common = status
		default:
			return Status(1)
		}
	}
	if common == OK {
		return nil
	}
	return Status(common)
}

func ofCode(code fault.Code) int {
	for _, r := range table() {
		if r.code == code {
			return r.status
		}
	}
	return 1
}

// Help renders the table for `banger help exit-codes`.
func Help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6d  %-15s %s\n", OK, "", "it worked")
	for _, r := range table() {
		fmt.Fprintf(&b, "%6d  %-15s %s\n", r.status, r.code, r.meaning)
	}
	return b.String()
}

type row struct {
	code    fault.Code
	status  int
	meaning string
}

// table never changes the meaning of a number that was released. 130 is what a shell reports for a
// program ended by Ctrl-C.
func table() []row {
	return []row{
		{fault.Internal, 1, "a fault of banger itself"},
		{fault.Invalid, 2, "the command line or the request is wrong"},
		{fault.NotFound, 3, "no such object, or not yours"},
		{fault.AlreadyExists, 4, "the name is taken"},
		{fault.Ambiguous, 5, "the name or id prefix matches several objects"},
		{fault.WrongState, 6, "the object's state does not allow it"},
		{fault.InUse, 7, "another object needs it"},
		{fault.Forbidden, 8, "you may not do this"},
		{fault.Requirement, 9, "the host lacks something: KVM, a program, a version"},
		{fault.Exhausted, 10, "no disk space, memory or addresses are left"},
		{fault.Unavailable, 11, "the daemon or the guest does not answer"},
		{fault.Timeout, 12, "it did not happen in time"},
		{fault.Incompatible, 13, "versions or architectures do not go together"},
		{fault.GuestFailed, 14, "the guest broke: a panic, no init, a failed boot"},
		{fault.Corrupt, 15, "stored data is damaged"},
		{fault.Canceled, 130, "it was called off, or you pressed Ctrl-C"},
	}
}
