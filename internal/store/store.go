// Package store keeps VMs, records and operations in SQLite, and each VM's description beside its
// disks as vm.json. Every method that writes is one durable commit.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger/internal/fault"
)

// File is the database's name in the state directory.
const File = "banger.db"

//go:embed migrations/*.sql
var migrations embed.FS

// Store is an open database. All methods may be called concurrently.
type Store struct {
	path    string
	write   *sql.DB // one connection: SQLite has one writer anyway, and this way nobody waits by polling
	read    *sql.DB
	commits atomic.Int64
}

// Open opens the database in dir, makes it where there is none and brings an older one up to date,
// keeping a copy of it as it was.
func Open(ctx context.Context, dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.System(err, "open database in", dir)
	}
	s := &Store{path: filepath.Join(dir, File)}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(s.explain(err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	// Made here and not by SQLite, for its mode: documents hold host keys.
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if s.write, err = sql.Open("sqlite", s.dsn()); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", s.dsn()+"&mode=ro"); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(4)
	return s.migrate(ctx)
}

// dsn carries the pragmas, so that every pooled connection has them.
func (s *Store) dsn() string {
	q := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(FULL)"},
		"_txlock": {"immediate"}, // a deferred transaction fails with BUSY when it turns to writing under load
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: s.path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

func (s *Store) migrate(ctx context.Context) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.write, sub)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	switch {
	case have > want:
		return fault.New(fault.Incompatible, "it was written by a newer banger: schema %d, this build knows %d", have, want).
			WithOp("open database", s.path).WithHint("install the newer banger again, or use another state_dir; nothing was changed")
	case have == want:
		return nil
	case have > 0:
		copyTo := fmt.Sprintf("%s.before-%d", s.path, want)
		if err := os.Remove(copyTo); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := s.write.ExecContext(ctx, "VACUUM INTO ?", copyTo); err != nil {
			return fmt.Errorf("keep a copy before migrating: %w", err)
		}
	}
	_, err = p.Up(ctx)
	return err
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

// commit runs f in one durable transaction.
func (s *Store) commit(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(err)
	}
	if err := f(tx); err != nil {
		if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
		return s.explain(err)
	}
	if err := tx.Commit(); err != nil {
		return s.explain(err)
	}
	s.commits.Add(1)
	return nil
}

// explain turns what SQLite says into what a person can act on.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	say := func(code fault.Code, msg, hint string) error {
		return &fault.Error{Code: code, Op: "use database", Subject: s.path, Msg: msg, Hint: hint, Err: err}
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fault.System(err, "use database", s.path)
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return say(fault.Corrupt, "it is damaged: "+e.Error(), "move it away; each VM's vm.json beside its disks holds what it said")
	case sqlite3.SQLITE_FULL:
		return say(fault.Exhausted, "the disk is full", "free some space: delete VMs or images that you no longer need")
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return say(fault.Requirement, "it cannot be written", "see that the state directory is writable for the daemon")
	case sqlite3.SQLITE_IOERR:
		return say(fault.Internal, "the disk failed: "+e.Error(), "see the kernel's log for the disk's errors")
	}
	return say(fault.Internal, e.Error(), "")
}
