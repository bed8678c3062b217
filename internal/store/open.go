package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pressly/goose/v3"

	"banger/internal/fault"
)

// File is the database's name in the state directory.
const File = "banger.db"

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the database in dir, makes it where there is none, and brings an older one up to date
// after keeping a copy of it as it was.
//
// A database of a newer schema is fault.Incompatible and stays untouched to the byte. A file that is
// no whole database of ours is fault.Corrupt. Processes that open one directory must take turns, which
// the daemon's lock sees to; Open itself may be called concurrently.
func Open(ctx context.Context, dir string) (*Store, error) {
	schema, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return open(ctx, dir, schema)
}

func open(ctx context.Context, dir string, schema fs.FS) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.System(err, "open database in", dir)
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, fault.System(err, "open database in", dir)
	}
	defer unlock()
	s := &Store{path: filepath.Join(dir, File), changed: make(chan struct{})}
	err = s.inScratch(func(scratch string) error { return s.prepare(ctx, schema, scratch) })
	if err == nil {
		err = s.connect(ctx, schema)
	}
	if err != nil {
		return nil, errors.Join(s.explain(err), s.Close())
	}
	return s, nil
}

// lock keeps two opens apart that make or migrate the same database.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// inScratch runs f with an empty directory on the database's file system, which is gone afterwards. A
// killed predecessor's is removed first.
func (s *Store) inScratch(f func(dir string) error) error {
	dir := s.path + ".tmp"
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}

// prepare sees to it that the file is a whole database that this build may open: it makes a missing
// one, refuses what is newer or damaged, and keeps a copy of what is older. It does not open the file
// with SQLite, which would write to its companions.
func (s *Store) prepare(ctx context.Context, schema fs.FS, scratch string) error {
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.create(ctx, schema, scratch)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return s.corrupt("it is not a regular file")
	case info.Size() == 0: // SQLite would take it for a new one, and every VM would be forgotten
		return s.corrupt("it is empty")
	}
	look, err := s.copyTo(scratch)
	if err != nil {
		return err
	}
	return errors.Join(s.judge(ctx, look, schema, scratch), look.Close())
}

// judge decides by a copy of the database what becomes of it.
func (s *Store) judge(ctx context.Context, look *sql.DB, schema fs.FS, scratch string) error {
	have, err := s.inspect(ctx, look)
	if err != nil {
		return err
	}
	want, err := newest(look, schema)
	if err != nil {
		return err
	}
	switch {
	case have > want:
		return fault.New(fault.Incompatible, "it was written by a newer banger: schema %d, this build knows %d", have, want).
			WithOp("open database", s.path).WithHint("install the newer banger again, or use another state_dir; nothing was changed")
	case have < want:
		return s.keep(ctx, look, filepath.Join(scratch, "kept"), fmt.Sprintf("%s.before-%d", s.path, want))
	}
	return nil
}

// create makes the database elsewhere and puts it in place whole, so that one that is cut short is
// never taken for a damaged one.
func (s *Store) create(ctx context.Context, schema fs.FS, scratch string) error {
	if _, err := os.Lstat(s.path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		// SQLite would replay it into the new database.
		return errors.Join(err, s.corrupt("it is missing, but its -wal is there"))
	}
	path := filepath.Join(scratch, File)
	// Made here and not by SQLite, for its mode: documents hold host keys.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn(path, nil))
	if err != nil {
		return err
	}
	if err := errors.Join(migrate(ctx, db, schema), db.Close()); err != nil {
		return err
	}
	return settle(path, s.path)
}

// copyTo opens a copy of the database with what its -wal holds.
func (s *Store) copyTo(scratch string) (*sql.DB, error) {
	to := filepath.Join(scratch, File)
	if err := copyFile(s.path, to); err != nil {
		return nil, err
	}
	if err := copyFile(s.path+"-wal", to+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return sql.Open("sqlite", dsn(to, nil))
}

// inspect returns the schema version of a database, or why it is none of ours.
func (s *Store) inspect(ctx context.Context, db *sql.DB) (version int64, err error) {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return 0, err
	}
	if verdict != "ok" {
		return 0, s.corrupt("it is damaged: %s", verdict)
	}
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name IN ('goose_db_version', 'vms')").Scan(&tables); err != nil {
		return 0, err
	}
	if tables != 2 {
		return 0, s.corrupt("it is another program's database")
	}
	err = db.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&version)
	return version, err
}

// keep stores a copy of the database durably, in place of an older one of that name.
func (s *Store) keep(ctx context.Context, db *sql.DB, by, path string) error {
	f, err := os.OpenFile(by, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", by); err != nil {
		return fmt.Errorf("keep a copy before migrating: %w", err)
	}
	return settle(by, path)
}

// connect opens the file that prepare has approved of.
func (s *Store) connect(ctx context.Context, schema fs.FS) (err error) {
	// In the name, so that every pooled connection has them.
	options := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(FULL)"},
		"_txlock": {"immediate"}, // a deferred transaction fails with BUSY when it turns to writing under load
	}
	if s.write, err = sql.Open("sqlite", dsn(s.path, options)); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	options.Set("mode", "ro")
	if s.read, err = sql.Open("sqlite", dsn(s.path, options)); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(4)
	if err := migrate(ctx, s.write, schema); err != nil {
		return err
	}
	return s.mark(ctx)
}

// mark reads the instance's tag. The first open makes it.
func (s *Store) mark(ctx context.Context) error {
	err := transact(ctx, s.write, func(tx *sql.Tx) error {
		var b [2]byte
		_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('tag', ?) ON CONFLICT DO NOTHING", hex.EncodeToString(b[:])); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'tag'").Scan((*string)(&s.tag))
	})
	if err == nil && !s.tag.Valid() {
		err = s.corrupt("the instance's tag in it, %q, is none", s.tag)
	}
	return err
}

func migrate(ctx context.Context, db *sql.DB, schema fs.FS) error {
	p, err := goose.NewProvider(goose.DialectSQLite3, db, schema)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// newest is the version that a schema's migrations lead to.
func newest(db *sql.DB, schema fs.FS) (int64, error) {
	p, err := goose.NewProvider(goose.DialectSQLite3, db, schema)
	if err != nil {
		return 0, err
	}
	sources := p.ListSources()
	return sources[len(sources)-1].Version, nil
}

// dsn names a database file to SQLite.
func dsn(path string, options url.Values) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}).String()
}

// settle puts a finished file in its place, durably.
func settle(from, to string) error {
	if err := syncPath(from); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncPath(filepath.Dir(to))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
