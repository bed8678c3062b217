package snapdir_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/fault"
	"banger/internal/snapdir"
	"banger/internal/snapshot"
)

func dirs() snapdir.Dirs {
	return snapdir.Dirs{Sparse: func(context.Context, string) error { return nil }}
}

// sealed makes a snapshot as a capture does.
func sealed(t *testing.T) (snapdir.Dirs, string) {
	t.Helper()
	d, dir := dirs(), filepath.Join(t.TempDir(), "golden", "k")
	must(t, d.Make(dir))
	must(t, os.WriteFile(filepath.Join(dir, snapshot.FileState), []byte("state"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, snapshot.FileMemory), []byte("memory"), 0o600))
	must(t, d.Seal(t.Context(), dir, snapshot.Manifest{Name: "k", Frozen: snapshot.Frozen{VCPU: 2}}))
	return d, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestASealedSnapshotIsFoundUnaltered(t *testing.T) {
	d, dir := sealed(t)
	m, err := d.Open(dir)
	must(t, err)
	if m.Name != "k" || m.Frozen.VCPU != 2 || m.Memory.Size != 6 {
		t.Errorf("it came back as %+v", m)
	}
	names, err := d.List(filepath.Dir(dir))
	must(t, err)
	if len(names) != 1 || names[0] != "k" {
		t.Errorf("listed %v", names)
	}
}

func TestWhatWasNotSealedIsNoSnapshot(t *testing.T) {
	d, dir := dirs(), filepath.Join(t.TempDir(), "k")
	must(t, d.Make(dir))
	must(t, os.WriteFile(filepath.Join(dir, snapshot.FileMemory), nil, 0o600))
	if _, err := d.Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened: %v", err)
	}
	must(t, d.Make(dir)) // what a crash left is no obstacle
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestASealedSnapshotIsNeverTakenOver(t *testing.T) {
	d, dir := sealed(t)
	if err := d.Make(dir); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("made anew: %v", err)
	}
	must(t, d.Remove(dir))
	must(t, d.Remove(dir))
	must(t, d.Make(dir))
}

func TestAlteredSnapshotsAreRefused(t *testing.T) {
	for name, alter := range map[string]func(dir string) error{
		"state": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, snapshot.FileState), []byte("stale"), 0o600)
		},
		"state is gone": func(dir string) error { return os.Remove(filepath.Join(dir, snapshot.FileState)) },
		"memory is longer": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, snapshot.FileMemory), []byte("memory and more"), 0o600)
		},
		"memory is another file": func(dir string) error {
			memory := filepath.Join(dir, snapshot.FileMemory)
			return errors.Join(os.Rename(memory, memory+".old"), os.WriteFile(memory, []byte("memory"), 0o600))
		},
		"manifest": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, snapshot.FileManifest), []byte("{"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := sealed(t)
			must(t, alter(dir))
			_, err := d.Open(dir)
			if f := fault.From(err); f == nil || f.Code != fault.Corrupt && !errors.Is(err, fs.ErrNotExist) || f.Hint == "" {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

// A touch changes nothing but the time, which nobody but the kernel sets.
func TestMemoryThatWasTouchedIsRefused(t *testing.T) {
	d, dir := sealed(t)
	must(t, os.Chmod(filepath.Join(dir, snapshot.FileMemory), 0o640))
	if _, err := d.Open(dir); !fault.Is(err, fault.Corrupt) {
		t.Errorf("opened: %v", err)
	}
}

func TestVerifyNotesTheMemorysDigestAndHoldsItToThat(t *testing.T) {
	d, dir := sealed(t)
	must(t, d.Verify(t.Context(), dir))
	must(t, d.Verify(t.Context(), dir))
	m, err := d.Open(dir)
	must(t, err)
	if m.MemorySHA256 == "" {
		t.Error("no digest was noted")
	}
}

func TestANewerSnapshotIsLeftAlone(t *testing.T) {
	d, dir := sealed(t)
	must(t, os.WriteFile(filepath.Join(dir, snapshot.FileManifest), []byte(`{"schema": 99}`), 0o600))
	if _, err := d.Open(dir); !fault.Is(err, fault.Incompatible) {
		t.Errorf("opened: %v", err)
	}
}

// One of which a file is gone is no missing snapshot: it can be removed, and is told of.
func TestALostFileIsAnAlteration(t *testing.T) {
	for _, file := range []string{snapshot.FileState, snapshot.FileMemory} {
		d, dir := sealed(t)
		must(t, os.Remove(filepath.Join(dir, file)))
		if _, err := d.Open(dir); !fault.Is(err, fault.Corrupt) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without its %s: %v", file, err)
		}
	}
}
