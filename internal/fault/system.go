package fault

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
)

// System says what an error of the operating system means to the one who wanted something of the
// file system. The path moves from the cause's text to the subject. System of nil is nil.
func System(err error, op, subject string) error {
	if err == nil {
		return nil
	}
	code, hint := Internal, "see that the directory is there, and that the daemon may use it"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code, hint = Exhausted, "free some space: delete VMs or images that you no longer need"
	case errors.Is(err, syscall.EFBIG):
		code, hint = Invalid, "choose a smaller disk: the file system holds no file of this size"
	case errors.Is(err, syscall.EROFS):
		code, hint = Requirement, "the file system is mounted read-only: see the kernel's log for why"
	case errors.Is(err, fs.ErrExist):
		code, hint = AlreadyExists, "nothing was overwritten; move it away if it is not needed"
	case errors.Is(err, context.Canceled):
		code, hint = Canceled, ""
	case errors.Is(err, context.DeadlineExceeded):
		code, hint = Timeout, ""
	}
	msg := err.Error()
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		msg = e.Err.Error()
	}
	return &Error{Code: code, Op: op, Subject: subject, Msg: msg, Hint: hint, Err: err}
}
