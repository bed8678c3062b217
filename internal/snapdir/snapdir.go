// Package snapdir keeps snapshots on the disk: it makes their directories, seals them, and checks before anybody goes
// on from one that it still is what was sealed.
package snapdir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/host/block"
	"banger/internal/snapshot"
)

// Bounds of what is read.
const (
	maxManifest = 1 << 20
	maxState    = 64 << 20 // Firecracker's is some tens of KiB
	hashStep    = 4 << 20  // of memory between two rests
	hashRest    = 4        // times what a step took
)

// Dirs keeps snapshots.
type Dirs struct {
	// Sparse gives back the blocks of a file that hold nothing but zeroes.
	Sparse func(ctx context.Context, path string) error
}

// Make makes a snapshot's directory, empty. One that was sealed is never taken over; what an interrupted one left is
// removed.
func (Dirs) Make(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, snapshot.FileManifest)); err == nil {
		return fault.New(fault.AlreadyExists, "there is one").WithOp("make snapshot", dir).WithHint("remove it first")
	}
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	return fault.System(err, "make snapshot", dir)
}

// Seal completes the manifest with what its files are told by, makes all of it durable, and writes the manifest last:
// without one there is no snapshot.
func (d Dirs) Seal(ctx context.Context, dir string, m snapshot.Manifest) error {
	return fault.System(d.seal(ctx, dir, m), "seal snapshot", dir)
}

func (d Dirs) seal(ctx context.Context, dir string, m snapshot.Manifest) error {
	memory := filepath.Join(dir, snapshot.FileMemory)
	if err := d.Sparse(ctx, memory); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncPath(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if m.StateSHA256, err = hashState(dir); err != nil {
		return err
	}
	if m.Memory, err = block.Identify(memory); err != nil {
		return err
	}
	m.Schema = snapshot.Schema
	return writeManifest(dir, m)
}

// Open returns the manifest of a sealed snapshot. None is fs.ErrNotExist. One whose state has other bytes, or whose
// memory is another file or was written to, is fault.Corrupt.
func (Dirs) Open(dir string) (snapshot.Manifest, error) {
	m, err := readManifest(dir)
	if err != nil {
		return m, err
	}
	altered := func(file string) error {
		return fault.New(fault.Corrupt, "its file %s is not what was sealed", file).WithOp("open snapshot", dir).
			WithHint("it is of no more use: remove it, and it is made anew")
	}
	sum, err := hashState(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, fault.System(err, "open snapshot", dir)
	}
	if err != nil || sum != m.StateSHA256 {
		return m, altered(snapshot.FileState)
	}
	memory, err := block.Identify(filepath.Join(dir, snapshot.FileMemory))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, fault.System(err, "open snapshot", dir)
	}
	if err != nil || !memory.Same(m.Memory) {
		return m, altered(snapshot.FileMemory)
	}
	return m, nil
}

// Verify reads the whole memory of a sealed snapshot. The first time its digest is noted, later it must be the same.
func (d Dirs) Verify(ctx context.Context, dir string) error {
	m, err := d.Open(dir)
	if err != nil {
		return err
	}
	sum, err := hash(ctx, filepath.Join(dir, snapshot.FileMemory))
	if err != nil {
		return fault.System(err, "verify snapshot", dir)
	}
	switch m.MemorySHA256 {
	case sum:
		return nil
	case "":
		m.MemorySHA256 = sum
		return fault.System(writeManifest(dir, m), "verify snapshot", dir)
	}
	return fault.New(fault.Corrupt, "its memory has other bytes than it was sealed with").WithOp("verify snapshot", dir).
		WithHint("it is of no more use: remove it, and it is made anew; then look at the disk")
}

// List names the sealed snapshots among the directories of dir, by their names.
func (Dirs) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.System(err, "list snapshots", dir)
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), snapshot.FileManifest)); err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Remove removes a snapshot with all that is in it, the manifest first: from then on there is none. Gone is success.
func (Dirs) Remove(dir string) error {
	err := os.Remove(filepath.Join(dir, snapshot.FileManifest))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return fault.System(errors.Join(err, os.RemoveAll(dir)), "remove snapshot", dir)
}

// Sweep removes the directories of dir in which there is no sealed snapshot: what an interrupted one left.
func (d Dirs) Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{fault.System(err, "sweep snapshots", dir)}
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), snapshot.FileManifest)); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, d.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func readManifest(dir string) (m snapshot.Manifest, err error) {
	path := filepath.Join(dir, snapshot.FileManifest)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return m, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return m, fault.System(err, "read", path)
	}
	if len(body) > maxManifest || json.Unmarshal(body, &m) != nil || m.Schema < 1 {
		return m, fault.New(fault.Corrupt, "it cannot be read").WithOp("read", path).WithHint("remove the snapshot; it is made anew")
	}
	if m.Schema != snapshot.Schema {
		return m, fault.New(fault.Incompatible, "it has schema %d, this build knows %d", m.Schema, snapshot.Schema).WithOp("read", path).
			WithHint("it is of another banger: use that one, or remove the snapshot")
	}
	return m, nil
}

func writeManifest(dir string, m snapshot.Manifest) error {
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+snapshot.FileManifest+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(append(body, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, snapshot.FileManifest))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return errors.Join(syncPath(dir), syncPath(filepath.Dir(dir)))
}

func hashState(dir string) (string, error) {
	f, err := os.Open(filepath.Join(dir, snapshot.FileState))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxState+1))
	if err == nil && n > maxState {
		err = errors.New("the state is absurdly large")
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

func hash(ctx context.Context, path string) (string, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	for {
		begun := time.Now()
		_, err := io.CopyN(h, f, hashStep)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		select { // nobody waits for it, while somebody may want to use what it verifies
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(hashRest * time.Since(begun)):
		}
	}
}

// syncPath makes a file or a directory durable.
func syncPath(path string) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
