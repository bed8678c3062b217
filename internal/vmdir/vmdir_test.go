package vmdir_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/store"
	"banger/internal/vm"
	"banger/internal/vmdir"
)

// The verbs see VM directories through this port.
var _ lifecycle.Dirs = vmdir.Dirs{}

const id vm.ID = "0123456789ab"

func dirs(t *testing.T) vmdir.Dirs {
	t.Helper()
	return vmdir.Dirs{Layout: vm.Layout{State: t.TempDir()}}
}

func made(t *testing.T, d vmdir.Dirs, id vm.ID) {
	t.Helper()
	if err := d.Make(id); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestMakeTakesNothingOver(t *testing.T) {
	d := dirs(t)
	made(t, d, id)
	for _, dir := range []string{d.Layout.VMs(), d.Layout.VM(id), d.Layout.Jail(id), d.Layout.Logs(id)} {
		if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	disk := filepath.Join(d.Layout.Jail(id), vm.FileWorkDisk)
	write(t, disk, "work")
	err := d.Make(id)
	want := `make directory "` + d.Layout.VM(id) + `": file exists`
	if !fault.Is(err, fault.AlreadyExists) || err.Error() != want || fault.From(err).Hint == "" {
		t.Errorf("got %v, want %s", err, want)
	}
	if !exists(t, disk) {
		t.Error("the disk of the VM that was there is gone")
	}
}

func TestWriteIsReadBack(t *testing.T) {
	d := dirs(t)
	v := vm.VM{ID: id, Name: "dev"}
	err := d.Write(v)
	if f := fault.From(err); err == nil || f.Op != "write" || f.Subject != filepath.Join(d.Layout.VM(id), store.FileVM) {
		t.Errorf("without a directory: %v", err)
	}
	made(t, d, id)
	if err := d.Write(v); err != nil {
		t.Fatal(err)
	}
	if got, err := store.ReadVM(d.Layout.VM(id)); err != nil || got.Name != "dev" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRemoveStaysInside(t *testing.T) {
	d := dirs(t)
	made(t, d, id)
	made(t, d, "ba9876543210")
	outside := filepath.Join(d.Layout.State, "precious")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(outside, "file"), "x")
	// A hypervisor that was taken over can leave links in its directory.
	if err := os.Symlink(outside, filepath.Join(d.Layout.Jail(id), "link")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // gone is success
		if err := d.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	if exists(t, d.Layout.VM(id)) || !exists(t, filepath.Join(outside, "file")) {
		t.Error("it removed too little or too much")
	}
	for _, bad := range []vm.ID{"", ".", "..", "../images", "0123456789AB"} {
		if err := d.Remove(bad); !fault.Is(err, fault.Internal) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if !exists(t, d.Layout.VM("ba9876543210")) {
		t.Error("another VM's directory is gone")
	}
}

func TestKeepLogs(t *testing.T) {
	d := dirs(t)
	if paths, err := d.KeepLogs(id, "op-none"); err != nil || len(paths) > 0 {
		t.Errorf("of a VM without any: %v, %v", paths, err)
	}
	begin := time.Now().Add(-time.Hour)
	for i := range 25 {
		id := vm.ID(fmt.Sprintf("%012x", i))
		made(t, d, id)
		write(t, d.Layout.ConsoleLog(id), "one\ntwo\x1b[2J\n")
		set := fmt.Sprintf("op-%02d", 24-i) // so that age and name disagree
		if err := os.Chtimes(d.Layout.Logs(id), begin, begin.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		paths, err := d.KeepLogs(id, set)
		if err != nil || !slices.Equal(paths, []string{filepath.Join(d.Layout.Failed(), set, "console.log")}) {
			t.Fatalf("%v, %v", paths, err)
		}
		if tail := d.Tail(paths[0], 1); strings.Contains(tail, "\x1b") || !strings.HasPrefix(tail, "two") {
			t.Errorf("tail %q", tail)
		}
		if exists(t, d.Layout.Logs(id)) {
			t.Error("the logs are in two places")
		}
	}
	kept, err := os.ReadDir(d.Layout.Failed())
	if err != nil || len(kept) != 20 || kept[0].Name() != "op-00" || kept[19].Name() != "op-19" {
		t.Errorf("kept %v, %v", kept, err)
	}
	made(t, d, id)
	_, err = d.KeepLogs(id, "op-00")
	if f := fault.From(err); err == nil || f.Op != "keep logs in" || f.Subject != filepath.Join(d.Layout.Failed(), "op-00") {
		t.Errorf("a set that is there: %v", err)
	}
}

func TestTailOfNothing(t *testing.T) {
	if text := dirs(t).Tail("/nonexistent", 3); text != "" {
		t.Errorf("%q", text)
	}
}
