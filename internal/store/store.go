// Package store keeps VMs, records, operations and events in SQLite, and each VM's description beside its
// disks as vm.json. Events are written in the transaction of the change that they tell of. Every method that writes is one durable commit.
package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Store is an open database. All methods may be called concurrently.
type Store struct {
	path    string
	tag     vm.Tag
	write   *sql.DB // one connection: SQLite has one writer anyway, and this way nobody waits by polling
	read    *sql.DB
	commits atomic.Int64

	known known

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every commit
}

// Close closes the database.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Commits counts the durable commits since Open.
func (s *Store) Commits() int64 { return s.commits.Load() }

// Tag is the instance's mark on host devices.
func (s *Store) Tag() vm.Tag { return s.tag }

// change is commit of what changes a VM. keep takes that in before anybody is told.
func (s *Store) change(ctx context.Context, f func(tx *sql.Tx) error, keep func()) error {
	s.known.turn.Lock()
	defer s.known.turn.Unlock()
	err := s.commitThen(ctx, f, keep)
	if err != nil {
		s.known.forget()
	}
	return err
}

// commit runs f in one durable transaction.
func (s *Store) commit(ctx context.Context, f func(tx *sql.Tx) error) error {
	return s.commitThen(ctx, f, func() {})
}

func (s *Store) commitThen(ctx context.Context, f func(tx *sql.Tx) error, then func()) error {
	if err := transact(ctx, s.write, f); err != nil {
		return s.explain(err)
	}
	then()
	s.commits.Add(1)
	s.wake()
	return nil
}

func transact(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
		return err
	}
	return tx.Commit()
}

// explain turns what SQLite says into what a person can act on.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fault.System(err, "use database", s.path)
	}
	say := func(code fault.Code, msg, hint string) error {
		return &fault.Error{Code: code, Op: "use database", Subject: s.path, Msg: msg, Hint: hint, Err: err}
	}
	switch e.Code() & 0xff { // the rest of an extended code tells which of SQLite's own steps failed
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return s.corrupt("it is damaged: %w", err)
	case sqlite3.SQLITE_FULL:
		return say(fault.Exhausted, "the disk is full", "free some space: delete VMs or images that you no longer need")
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return say(fault.Requirement, "it cannot be written: "+e.Error(), "see that the state directory is there and the daemon may write to it")
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return say(fault.InUse, "another program has locked it", "close the program that has the database open, and try again")
	case sqlite3.SQLITE_INTERRUPT:
		return say(fault.Canceled, "it was called off", "")
	case sqlite3.SQLITE_IOERR:
		return say(fault.Internal, "the disk failed: "+e.Error(), "see the kernel's log for the disk's errors")
	}
	return say(fault.Internal, e.Error(), "see the daemon's log; nothing of this change was stored")
}

func (s *Store) corrupt(format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupt, format, args...).WithOp("use database", s.path).
		WithHint("restore it from a backup, or move it away with its -wal and -shm: each VM's vm.json beside its disks holds what it said")
}
