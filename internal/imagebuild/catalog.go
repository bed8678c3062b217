// Package imagebuild makes images: it bootstraps Debian, takes in any other root file system, and
// lays both out as the boot set that VMs are made from.
//
// An image is a directory that appears whole: it is built beside its place under a name that is never
// listed, synced, and renamed.
package imagebuild

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"banger/internal/fault"
	"banger/internal/image"
)

// Catalog is a directory of images.
type Catalog struct {
	Dir string
	// Damaged is told of a directory whose manifest cannot be used; the others are still listed.
	Damaged func(dir string, err error)
}

// maxManifest bounds a manifest; Debian's has about 40 KiB.
const maxManifest = 4 << 20

var idPattern = regexp.MustCompile(`^[0-9a-f]{12}$`)

// List returns every whole image, newest first.
func (c *Catalog) List() ([]image.Manifest, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []image.Manifest
	for _, e := range entries {
		if !e.IsDir() || !idPattern.MatchString(e.Name()) {
			continue
		}
		m, err := readManifest(filepath.Join(c.Dir, e.Name()))
		if err == nil && m.ID != e.Name() {
			err = fault.New(fault.Corrupt, "its manifest is that of image %s", m.ID)
		}
		if err != nil {
			c.Damaged(filepath.Join(c.Dir, e.Name()), err)
			continue
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b image.Manifest) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// Delete removes an image. Whether a VM needs it is the caller's to ask. Gone is success.
func (c *Catalog) Delete(id string) error {
	if !idPattern.MatchString(id) {
		return fault.New(fault.Invalid, "it is not an image id").WithOp("delete image", id)
	}
	// Renamed first, so that a removal that is cut short leaves nothing that is listed.
	doomed := filepath.Join(c.Dir, ".deleted-"+id)
	if err := os.RemoveAll(doomed); err != nil { // of an earlier image of this id, where that failed
		return err
	}
	if err := os.Rename(filepath.Join(c.Dir, id), doomed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(doomed)
}

// Clean removes what builds and removals left behind when they were killed. A build that is under
// way holds a lock on its directory and is left alone.
func (c *Catalog) Clean() error {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".build-") && !strings.HasPrefix(e.Name(), ".deleted-") {
			continue
		}
		dir, err := os.Open(filepath.Join(c.Dir, e.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			errs = append(errs, os.RemoveAll(dir.Name()))
		}
		_ = dir.Close()
	}
	return errors.Join(append(errs, err)...)
}

func readManifest(dir string) (image.Manifest, error) {
	var m image.Manifest
	f, err := os.Open(filepath.Join(dir, image.FileManifest))
	if err != nil {
		return m, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxManifest)).Decode(&m); err != nil {
		return m, fault.New(fault.Corrupt, "its manifest cannot be read: %w", err)
	}
	if m.Root.Size <= 0 || m.WorkSeed.Size <= 0 || m.Arch == "" || m.Name == "" || !path.IsAbs(m.Init) {
		return m, fault.New(fault.Corrupt, "its manifest lacks a name, an architecture, sizes or an init")
	}
	// A lost work seed is healed.
	for _, file := range []string{image.FileRoot, image.FileKernel, image.FileModules} {
		if st, err := os.Lstat(filepath.Join(dir, file)); err != nil || !st.Mode().IsRegular() {
			return m, fault.New(fault.Corrupt, "its %s is missing", file)
		}
	}
	return m, nil
}

func writeManifest(dir string, m image.Manifest) error {
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".manifest-")
	if err != nil {
		return err
	}
	_, err = f.Write(append(body, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), filepath.Join(dir, image.FileManifest))
}
