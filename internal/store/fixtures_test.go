package store_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/store"
	"banger/internal/vm"
)

// TestEverySchemaIsUpgraded opens a database of each schema that there was. The newest has one too, which
// `make generate` writes, so that it is there when it is the newest no more.
func TestEverySchemaIsUpgraded(t *testing.T) {
	migrations, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(migrations) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	fresh := t.TempDir()
	closed(t, open(t, fresh))
	before := ""
	for i, m := range migrations {
		number, _, _ := strings.Cut(filepath.Base(m), "_")
		path := "testdata/schema-" + strings.TrimLeft(number, "0") + ".sql"
		if _, err := os.Stat(path); err != nil && i == len(migrations)-1 && os.Getenv("BANGER_GENERATE") != "" {
			generateSchema(t, path, before)
		}
		before = path
		t.Run(path, func(t *testing.T) {
			dir := t.TempDir()
			restore(t, dir, path)
			stored := column(t, dir, "SELECT doc FROM vms ORDER BY name")
			s := open(t, dir)
			all, err := s.VMs(t.Context())
			if err != nil || len(all) == 0 || len(all) != len(stored) {
				t.Fatalf("%d of %d VMs, %v", len(all), len(stored), err)
			}
			for i, v := range all {
				keepsAll(t, stored[i], v)
			}
			if records, err := s.Records(t.Context(), all[0].ID); err != nil || len(records) == 0 {
				t.Errorf("records %v, %v", records, err)
			}
			if operations, err := s.Operations(t.Context(), 10); err != nil || len(operations) == 0 {
				t.Errorf("operations %v, %v", operations, err)
			}
			closed(t, s)
			if d := cmp.Diff(tables(t, fresh), tables(t, dir)); d != "" {
				t.Errorf("upgraded, it is not what a new one is (-new +upgraded):\n%s", d)
			}
		})
	}
}

// TestEveryReleasesVMIsReadable reads a vm.json of each release. A release has one with every field that
// it knows, which `make generate` writes.
func TestEveryReleasesVMIsReadable(t *testing.T) {
	version, err := os.ReadFile("../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	release := strings.TrimSpace(string(version))
	path := "testdata/vm-" + release + ".json"
	if _, err := os.Stat(path); err != nil && !strings.HasSuffix(release, "-dev") {
		if os.Getenv("BANGER_GENERATE") == "" {
			t.Errorf("%s is missing: run `make generate` and commit it with the release", path)
		} else {
			write(t, path, written(t, complete(t)))
		}
	}
	all, err := filepath.Glob("testdata/vm-*.json")
	if err != nil || len(all) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, path := range all {
		readable(t, path)
	}
	latest := filepath.Join(t.TempDir(), "vm-latest.json")
	write(t, latest, written(t, complete(t)))
	readable(t, latest)
}

func readable(t *testing.T, path string) {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := store.ReadVM(vmDir(t, string(golden().ID), body))
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	var file struct{ VM json.RawMessage }
	if err := json.Unmarshal(body, &file); err != nil {
		t.Fatal(err)
	}
	keepsAll(t, string(file.VM), v)
}

// keepsAll holds that whatever a stored document says is still there when it is written again: fields are
// only ever added.
func keepsAll(t *testing.T, stored string, v vm.VM) {
	t.Helper()
	again, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var had, has map[string]any
	if err := json.Unmarshal([]byte(stored), &had); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &has); err != nil {
		t.Fatal(err)
	}
	lacks(t, "", had, has)
}

func lacks(t *testing.T, prefix string, had, has map[string]any) {
	t.Helper()
	for name, value := range had {
		inner, object := value.(map[string]any)
		now, same := has[name].(map[string]any)
		switch {
		case object && same:
			lacks(t, prefix+name+".", inner, now)
		case !reflect.DeepEqual(value, has[name]):
			t.Errorf("%s%s was %v and is read as %v", prefix, name, value, has[name])
		}
	}
}

// complete is a VM without an empty field.
func complete(t *testing.T) vm.VM {
	t.Helper()
	v := golden()
	fill(t, reflect.ValueOf(&v).Elem())
	return v
}

func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[time.Time]() {
		if v.IsZero() {
			v.Set(reflect.ValueOf(golden().Created))
		}
		return
	}
	if v.Kind() == reflect.Struct && !strings.HasPrefix(v.Type().PkgPath(), "net/") {
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
		return
	}
	if !v.IsZero() {
		return
	}
	switch v.Type() {
	case reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.MustParsePrefix("fd01:203:405::adf:2/64")))
		return
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.MustParseAddr("fd01:203:405::adf:1")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key)
		fill(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		t.Fatalf("how is a %s filled?", v.Type())
	}
}

// written is the vm.json of v.
func written(t *testing.T, v vm.VM) string {
	t.Helper()
	dir := vmDir(t, string(v.ID), nil)
	if err := store.WriteVM(dir, v); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(filepath.Join(dir, store.FileVM))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// restore makes the database that a fixture describes.
func restore(t *testing.T, dir, fixture string) {
	t.Helper()
	body, err := os.ReadFile(fixture)
	if err != nil {
		t.Fatalf("%v\nhint: run `make generate` and commit what it writes", err)
	}
	db := database(t, dir)
	defer closed(t, db)
	if _, err := db.ExecContext(t.Context(), string(body)); err != nil {
		t.Fatalf("%s: %v", fixture, err)
	}
}

func database(t *testing.T, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, store.File))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// column returns a query's only column.
func column(t *testing.T, dir, query string) []string {
	t.Helper()
	db := database(t, dir)
	defer closed(t, db)
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	comment = regexp.MustCompile(`--[^\n]*`)
	blank   = regexp.MustCompile(`\s+`)
)

// tables is how a database's tables and indexes are made, however that was written. How migrations are
// counted is another module's.
func tables(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	for _, text := range column(t, dir, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name NOT IN ('goose_db_version', 'sqlite_sequence')") {
		out = append(out, blank.ReplaceAllString(comment.ReplaceAllString(text, ""), " "))
	}
	slices.Sort(out)
	return out
}

// generateSchema writes what the fixture of the schema before becomes.
func generateSchema(t *testing.T, path, before string) {
	t.Helper()
	dir := t.TempDir()
	restore(t, dir, before)
	closed(t, open(t, dir))
	lines := []string{
		"-- A database as this schema left it. Every later build must be able to open it, so once released this file never changes.",
		"PRAGMA journal_mode = WAL;",
	}
	for _, text := range column(t, dir, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid") {
		lines = append(lines, text+";")
	}
	for _, table := range column(t, dir, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid") {
		fields := column(t, dir, fmt.Sprintf("SELECT group_concat('quote(' || name || ')', ' || '', '' || ') FROM pragma_table_info('%s')", table))
		for _, row := range column(t, dir, fmt.Sprintf("SELECT %s FROM %s", fields[0], table)) {
			lines = append(lines, fmt.Sprintf("INSERT INTO %s VALUES (%s);", table, row))
		}
	}
	write(t, path, strings.Join(lines, "\n")+"\n")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
