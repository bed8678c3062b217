package store_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/store"
	"banger/internal/vm"
)

// byText compares what go-cmp cannot look into.
var byText = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// golden is the VM of testdata/vm-1.json, which every build must be able to read.
func golden() vm.VM {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return vm.VM{
		ID: "0123456789ab", Name: "dev", Owner: 1000, Labels: map[string]string{"project": "website"}, Arch: "amd64",
		Image:   vm.ImageRef{ID: "fedcba987654", Name: "debian:12"},
		Spec:    vm.Spec{VCPU: 2, Memory: vm.GiB, RootDisk: 2 * vm.GiB, WorkDisk: 8 * vm.GiB},
		Desired: vm.Running, State: vm.Running,
		Lease: vm.Lease{
			Address: netip.MustParsePrefix("10.223.0.2/22"), Gateway: netip.MustParseAddr("10.223.0.1"),
			MAC: "02:ba:0a:df:00:02", TAP: "bt1f2e-01234567", Bridge: "banger-1f2e", CID: 3,
		},
		Access: vm.Access{
			AuthorizedKeys: []string{"ssh-ed25519 AAAA user@host"}, HostKey: "ssh-ed25519 BBBB", HostKeyPrivate: "PEM",
			MachineID: "00112233445566778899aabbccddeeff",
		},
		Process: &vm.Process{PID: 4242, StartTime: 987654, BootID: "0f0e0d0c-0b0a-0908-0706-050403020100"},
		Created: at, Started: at.Add(4 * time.Second), Changed: at.Add(4 * time.Second),
	}
}

// vmDir makes a directory for a VM with this vm.json; nil leaves it out.
func vmDir(t *testing.T, id string, body []byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if body != nil {
		if err := os.WriteFile(filepath.Join(dir, store.FileVM), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func goldenText(t testing.TB) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/vm-1.json")
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestFirstSchemaStaysReadable(t *testing.T) {
	got, err := store.ReadVM(vmDir(t, "0123456789ab", goldenText(t)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(golden(), got, byText); d != "" {
		t.Error(d)
	}
	dir := vmDir(t, "0123456789ab", nil)
	if err := store.WriteVM(dir, golden()); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(dir, store.FileVM))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(goldenText(t)), string(written)); d != "" {
		t.Error("what is written is no longer schema 1:\n" + d)
	}
}

func TestReadVMRefuses(t *testing.T) {
	replace := func(from, to string) []byte {
		out := bytes.Replace(goldenText(t), []byte(from), []byte(to), 1)
		if bytes.Equal(out, goldenText(t)) {
			t.Fatalf("%q is not in the golden file", from)
		}
		return out
	}
	for _, c := range []struct {
		name string
		body []byte
		code fault.Code
		want string
	}{
		{"missing", nil, fault.NotFound, "there is none"},
		{"empty", []byte{}, fault.Corrupt, "it cannot be read: unexpected end of JSON input"},
		{"cut short", goldenText(t)[:200], fault.Corrupt, "it cannot be read: unexpected end of JSON input"},
		{"newer, and quite different", []byte(`{"schema": 2, "vm": "elsewhere"}`), fault.Incompatible, "it was written by a newer banger: schema 2, this build knows 1"},
		{"no schema", []byte(`{}`), fault.Corrupt, "it has no schema"},
		{"schema 0", replace(`"schema": 1`, `"schema": 0`), fault.Corrupt, "it has no schema"},
		{"trailing garbage", append(goldenText(t), "}"...), fault.Corrupt, "it cannot be read: invalid character '}' after top-level value"},
		{"too large", append(goldenText(t), bytes.Repeat([]byte(" "), 1<<20)...), fault.Corrupt, "it is larger than 1 MiB"},
		{"another VM's", replace("0123456789ab", "ba9876543210"), fault.Corrupt, "it describes the VM ba9876543210, whose directory this is not"},
		{"no id", replace("0123456789ab", "../../../etc"), fault.Corrupt, `"../../../etc" is not a VM's id`},
		{"a name that is none", replace(`"dev"`, `"-"`), fault.Corrupt, `name VM "-": it is not a valid host name`},
		{"wrong type", replace(`"owner": 1000`, `"owner": "root"`), fault.Corrupt, "it cannot be read: json: cannot unmarshal string into Go struct field VM.vm.owner of type int"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := vmDir(t, "0123456789ab", c.body)
			_, err := store.ReadVM(dir)
			want := `read "` + filepath.Join(dir, store.FileVM) + `": ` + c.want
			if fault.CodeOf(err) != c.code || err.Error() != want || fault.From(err).Hint == "" {
				t.Errorf("got %s %v (hint %q)\nwant %s %s", fault.CodeOf(err), err, fault.From(err).Hint, c.code, want)
			}
		})
	}
}

func TestReadVMTakesRegularFilesOnly(t *testing.T) {
	const id = "0123456789ab"
	for name, place := range map[string]func(path string) error{
		"link inside":  func(path string) error { return os.Symlink("other.json", path) },
		"link outside": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"FIFO":         func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory":    func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := vmDir(t, id, nil)
			if err := os.WriteFile(filepath.Join(dir, "other.json"), goldenText(t), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := place(filepath.Join(dir, store.FileVM)); err != nil {
				t.Fatal(err)
			}
			if _, err := store.ReadVM(dir); err == nil || strings.Contains(err.Error(), "root:") {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := store.ReadVM(filepath.Join(t.TempDir(), id)); !fault.Is(err, fault.NotFound) {
		t.Errorf("no directory: %v", err)
	}
}

func TestWriteVMLeavesOneWholeFile(t *testing.T) {
	dir := vmDir(t, "0123456789ab", []byte("old"))
	for range 3 {
		if err := store.WriteVM(dir, golden()); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != store.FileVM {
		t.Errorf("it left %v", entries)
	}
	if info, err := os.Stat(filepath.Join(dir, store.FileVM)); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestWriteVMThatFailsSaysWhere(t *testing.T) {
	held := vmDir(t, "0123456789ab", nil)
	if err := os.MkdirAll(filepath.Join(held, store.FileVM, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"no directory":       filepath.Join(t.TempDir(), "gone"),
		"nobody may write":   "/proc",
		"a directory is one": held,
	} {
		err := store.WriteVM(dir, golden())
		f := fault.From(err)
		if err == nil || f.Op != "write" || f.Subject != filepath.Join(dir, store.FileVM) || f.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(held, ".vm.json-*")); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func FuzzVM(f *testing.F) {
	f.Add(goldenText(f))
	f.Add([]byte(`{"schema":1,"vm":{"id":"0123456789ab","name":"a","lease":{"address":"::/0"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := store.ParseVM(body)
		if err != nil {
			if !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.Incompatible) {
				t.Fatalf("%s %v", fault.CodeOf(err), err)
			}
			return
		}
		dir := vmDir(t, string(v.ID), nil)
		if err := store.WriteVM(dir, v); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := store.ReadVM(dir)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		a, aerr := json.Marshal(v)
		b, berr := json.Marshal(again)
		if aerr != nil || berr != nil || !bytes.Equal(a, b) {
			t.Fatalf("%v %v\n%s\n%s", aerr, berr, a, b)
		}
	})
}
