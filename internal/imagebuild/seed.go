package imagebuild

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/fault"
	"banger/internal/host/block"
	"banger/internal/image"
	"banger/internal/vm"
)

// laySeed makes an image's work seed at path. What it is made of is laid out in dir meanwhile.
func (b *Builder) laySeed(ctx context.Context, m image.Manifest, dir, path string) (image.Disk, error) {
	tree := filepath.Join(dir, "seed")
	if err := errors.Join(os.Mkdir(tree, 0o700), seedFiles(tree)); err != nil {
		return image.Disk{}, err
	}
	d, err := b.mkfs(ctx, m, "work", tree, path, cmp.Or(m.WorkSeed.Size, seedSize), 8*vm.KiB)
	if err != nil {
		return d, err
	}
	// mke2fs copies everything but the mode of the top directory, which becomes /root.
	private := []string{"debugfs", "-w", "-R", "set_inode_field / mode 040700", path}
	if err := b.Run(ctx, private, nil, func(string) {}); err != nil {
		return d, err
	}
	return d, errors.Join(os.Chmod(path, 0o600), os.RemoveAll(tree))
}

// CheckSeed implements disk.Seeds. Of a seed that nobody has touched no more than the manifest is read.
func (b *Builder) CheckSeed(id string) error {
	dir := filepath.Join(b.Dir, id)
	m, err := readManifest(dir)
	if err == nil {
		_, err = recognize(filepath.Join(dir, image.FileWorkSeed), m.WorkSeed)
	}
	return err
}

// MakeSeed implements disk.Seeds.
func (b *Builder) MakeSeed(ctx context.Context, id, path string) error {
	m, err := readManifest(filepath.Join(b.Dir, id))
	if err != nil {
		return err
	}
	err = b.scratch(func(dir string) error {
		_, err := b.laySeed(ctx, m, dir, path)
		return err
	})
	return explain(err, "make work disk for image", m.Name)
}

// HealSeed makes an image's work seed anew where it is of no use, and reports whether it did. Of one that is of use it
// notes the fingerprint: an image of before there were any has none, and where an image was copied its files are others.
func (b *Builder) HealSeed(ctx context.Context, id string) (made bool, err error) {
	b.placing.Lock() // others write manifests too
	defer b.placing.Unlock()
	dir := filepath.Join(b.Dir, id)
	m, err := readManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was deleted
	}
	if err != nil {
		return false, err
	}
	defer func() { err = explain(err, "heal work seed of image", m.Name) }()
	path := filepath.Join(dir, image.FileWorkSeed)
	known, why := recognize(path, m.WorkSeed)
	if made = why != nil; made {
		if m.WorkSeed.Disk, err = b.replaceSeed(ctx, m, path); err != nil {
			return false, err
		}
	}
	if known != nil && known == m.WorkSeed.Fingerprint {
		return false, nil
	}
	if known == nil {
		if known, err = fingerprint(path); err != nil {
			return made, err
		}
	}
	m.WorkSeed.Fingerprint = known
	return made, errors.Join(writeManifest(dir, m), syncDir(dir))
}

// replaceSeed makes a work seed beside, looks whether its file system is whole, and puts it in its place.
func (b *Builder) replaceSeed(ctx context.Context, m image.Manifest, path string) (d image.Disk, err error) {
	err = b.scratch(func(dir string) error {
		beside := filepath.Join(dir, image.FileWorkSeed)
		if d, err = b.laySeed(ctx, m, dir, beside); err != nil {
			return err
		}
		if err := b.Run(ctx, []string{"e2fsck", "-fn", beside}, nil, func(string) {}); err != nil {
			return err
		}
		return errors.Join(syncDir(beside), os.Rename(beside, path))
	})
	return d, err
}

// recognize returns the fingerprint of the file at path, if it is the work seed that its image's manifest describes: the
// manifest's own where the file was not touched, nil where the manifest has none. Else fault.Corrupt says what is wrong.
func recognize(path string, d image.Seed) (*image.Fingerprint, error) {
	is, err := block.Identify(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Corrupt, "its work seed is missing")
	}
	if err != nil {
		return nil, err
	}
	known := d.Fingerprint
	switch {
	case is.Size != d.Size:
	case known == nil || is.Same(known.File):
		return known, nil
	default:
		now, err := fingerprint(path)
		if err != nil || now.SHA256 == known.SHA256 {
			return now, err
		}
	}
	return nil, fault.New(fault.Corrupt, "its work seed was altered")
}

// fingerprint reads a file.
func fingerprint(path string) (*image.Fingerprint, error) {
	is, err := block.Identify(path) // first: what is written to it from here on makes it another
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return &image.Fingerprint{SHA256: hex.EncodeToString(h.Sum(nil)), File: is}, nil
}
