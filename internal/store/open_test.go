package store_test

import (
	"database/sql"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/store"
	"banger/internal/vm"
)

// files returns what a directory holds, by name. Directories appear with a slash.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			out[e.Name()+"/"] = ""
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(body)
	}
	return out
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// crashed returns a state directory as a process leaves it that was killed right after it executed
// statements: what they wrote is in the -wal only.
func crashed(t *testing.T, statements string) string {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(from, store.File))
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, db)
	db.SetMaxOpenConns(1)
	body, err := os.ReadFile("testdata/schema-1.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(body), "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_autocheckpoint = 0", statements} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for name, body := range files(t, from) {
		if err := os.WriteFile(filepath.Join(to, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if statements != "" && files(t, to)[store.File+"-wal"] == "" {
		t.Fatal("the statements left no -wal")
	}
	return to
}

func closed(t *testing.T, db io.Closer) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s) })
	return s
}

func TestFirstSchemaStaysOpenable(t *testing.T) {
	s := open(t, crashed(t, "UPDATE vms SET owner = 1001"))
	if s.Tag() != "1f2e" {
		t.Errorf("tag %q", s.Tag())
	}
	if p, chosen, err := s.Subnet(t.Context()); err != nil || !chosen || p != netip.MustParsePrefix("10.223.0.0/22") {
		t.Errorf("subnet %v %v %v", p, chosen, err)
	}
	all, err := s.VMs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]vm.VM{golden()}, all, byText); d != "" {
		t.Error(d)
	}
	records, err := s.Records(t.Context(), golden().ID)
	if err != nil {
		t.Fatal(err)
	}
	want := []vm.Record{
		{VM: "0123456789ab", Kind: vm.RecordDir, Name: "0123456789ab", Until: vm.UntilDelete},
		{VM: "0123456789ab", Kind: vm.RecordTAP, Name: "bt1f2e-01234567", Until: vm.UntilStop},
	}
	if d := cmp.Diff(want, records); d != "" {
		t.Error(d)
	}
	o, err := s.Operation(t.Context(), "op-0123456789")
	if err != nil || o.Name != "dev" || len(o.Stages) != 1 {
		t.Errorf("operation %+v, %v", o, err)
	}
}

func TestNewerSchemaIsLeftUntouched(t *testing.T) {
	dir := crashed(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
	before := files(t, dir)
	s, err := store.Open(t.Context(), dir)
	if err == nil {
		_ = s.Close()
	}
	want := `open database "` + filepath.Join(dir, store.File) + `": it was written by a newer banger: schema 99, this build knows `
	if !fault.Is(err, fault.Incompatible) || !strings.HasPrefix(err.Error(), want) || !strings.Contains(fault.From(err).Hint, "install the newer banger") {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if d := cmp.Diff(before, files(t, dir)); d != "" {
		t.Error("it was changed")
	}
}

func TestCopyIsKeptBeforeMigrating(t *testing.T) {
	first, err := os.ReadFile("migrations/00001_first.sql")
	if err != nil {
		t.Fatal(err)
	}
	schema := fstest.MapFS{
		"00001_first.sql":  {Data: first},
		"00099_second.sql": {Data: []byte("-- +goose Up\nALTER TABLE vms ADD COLUMN colour TEXT;\n")},
	}
	dir := crashed(t, "UPDATE meta SET value = 'beef' WHERE key = 'tag'")
	// What an earlier attempt left is replaced, what a killed one left is removed.
	if err := os.WriteFile(filepath.Join(dir, "banger.db.before-99"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "banger.db.tmp", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenSchema(t.Context(), dir, schema)
	if err != nil {
		t.Fatal(err)
	}
	if s.Tag() != "beef" {
		t.Errorf("tag %q", s.Tag())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"banger.db", "banger.db.before-99"}) {
		t.Errorf("the directory holds %v", got)
	}
	kept := filepath.Join(dir, "banger.db.before-99")
	if info, err := os.Stat(kept); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of the copy: %v, %v", info.Mode(), err)
	}
	if _, err := store.Open(t.Context(), dir); !fault.Is(err, fault.Incompatible) {
		t.Errorf("the migrated database: %v", err)
	}
	back := t.TempDir()
	if err := os.Rename(kept, filepath.Join(back, store.File)); err != nil {
		t.Fatal(err)
	}
	old := open(t, back)
	if all, err := old.VMs(t.Context()); err != nil || len(all) != 1 || old.Tag() != "beef" {
		t.Errorf("the copy lacks what the -wal held: tag %q, %d VMs, %v", old.Tag(), len(all), err)
	}
}

func TestMigrationThatFailsLeavesTheDatabaseAsItWas(t *testing.T) {
	first, err := os.ReadFile("migrations/00001_first.sql")
	if err != nil {
		t.Fatal(err)
	}
	dir := crashed(t, "")
	_, err = store.OpenSchema(t.Context(), dir, fstest.MapFS{
		"00001_first.sql":  {Data: first},
		"00002_second.sql": {Data: []byte("-- +goose Up\nDROP TABLE records;\nDROP TABLE nonsense;\n")},
	})
	if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "no such table: nonsense") {
		t.Errorf("got %v", err)
	}
	if r, err := open(t, dir).Records(t.Context(), ""); err != nil || len(r) != 2 {
		t.Errorf("records %v, %v", r, err)
	}
}

func TestNewDatabase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "state")
	s := open(t, dir)
	if !s.Tag().Valid() {
		t.Errorf("tag %q", s.Tag())
	}
	if _, chosen, err := s.Subnet(t.Context()); err != nil || chosen {
		t.Errorf("subnet %v, %v", chosen, err)
	}
	if err := s.SetSubnet(t.Context(), netip.MustParsePrefix("10.9.8.0/22")); err != nil {
		t.Fatal(err)
	}
	for name, body := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 || body == "" && !strings.HasSuffix(name, "-wal") {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
}

func TestOpensThatRaceGetOneTag(t *testing.T) {
	dir := t.TempDir()
	tags := make([]vm.Tag, 8)
	var wg sync.WaitGroup
	for i := range tags {
		wg.Go(func() {
			s, err := store.Open(t.Context(), dir)
			if err != nil {
				t.Error(err)
				return
			}
			tags[i] = s.Tag()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if again := open(t, dir).Tag(); len(slices.Compact(append(tags, again))) != 1 {
		t.Errorf("%v, later %q", tags, again)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(name, body string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600) }
	}
	edit := func(statements string) func(string) error {
		return func(dir string) error {
			db, err := sql.Open("sqlite", filepath.Join(dir, store.File))
			if err != nil {
				return err
			}
			defer closed(t, db)
			_, err = db.ExecContext(t.Context(), statements)
			return err
		}
	}
	for _, c := range []struct {
		name  string
		place func(dir string) error
		want  string
	}{
		{"empty", write(store.File, ""), "it is empty"},
		{"not a database", write(store.File, strings.Repeat("hello ", 1000)), "it is damaged: file is not a database (26)"},
		{"cut short", func(dir string) error {
			if err := edit("CREATE TABLE goose_db_version (version_id); CREATE TABLE vms (id)")(dir); err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir, store.File), 4096)
		}, "it is damaged: "},
		{"another program's", edit("CREATE TABLE recipes (name)"), "it is another program's database"},
		{"a directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, store.File), 0o700) }, "it is not a regular file"},
		{"a link", func(dir string) error { return os.Symlink("elsewhere.db", filepath.Join(dir, store.File)) }, "it is not a regular file"},
		{"only its -wal", write(store.File+"-wal", "x"), "it is missing, but its -wal is there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.place(dir); err != nil {
				t.Fatal(err)
			}
			before := names(t, dir)
			_, err := store.Open(t.Context(), dir)
			want := `use database "` + filepath.Join(dir, store.File) + `": ` + c.want
			if !fault.Is(err, fault.Corrupt) || !strings.HasPrefix(err.Error(), want) || !strings.Contains(fault.From(err).Hint, "vm.json") {
				t.Errorf("got %s %v\nwant %s", fault.CodeOf(err), err, want)
			}
			if d := cmp.Diff(before, names(t, dir)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDamagedContentIsNamed(t *testing.T) {
	s := open(t, crashed(t, "UPDATE vms SET doc = '{'"))
	if _, err := s.VMs(t.Context()); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "a document in it cannot be read") {
		t.Errorf("document: %v", err)
	}
	s = open(t, crashed(t, "UPDATE meta SET value = 'here' WHERE key = 'subnet'"))
	if _, _, err := s.Subnet(t.Context()); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "the subnet in it is none") {
		t.Errorf("subnet: %v", err)
	}
	s = open(t, crashed(t, "INSERT INTO meta (key, value) VALUES ('ula', 'there')"))
	if _, _, err := s.ULA(t.Context()); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "the ula in it is none") {
		t.Errorf("IPv6 subnet: %v", err)
	}
	if _, err := store.Open(t.Context(), crashed(t, "UPDATE meta SET value = 'a tag' WHERE key = 'tag'")); !fault.Is(err, fault.Corrupt) {
		t.Errorf("tag: %v", err)
	}
}

func TestStateDirectoryThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"it is a file":        file,
		"its parent is":       filepath.Join(file, "state"),
		"nobody may write":    "/proc",
		"nobody may make one": "/proc/banger",
	} {
		_, err := store.Open(t.Context(), dir)
		if f := fault.From(err); err == nil || !strings.HasPrefix(f.Subject, dir) || f.Op == "" || f.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
