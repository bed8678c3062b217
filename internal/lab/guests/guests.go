// Package guests prepares the images that lab runs boot. They are made on the plain machine, where
// bootstrapping takes a minute and not twenty, kept in the lab's cache, and given to the lab host as a
// disk: an XFS that can reflink, with a state directory that holds them.
package guests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger/internal/fault"
	"banger/internal/host/exec"
	"banger/internal/image"
	"banger/internal/imagebuild"
	"banger/internal/lab"
	"banger/internal/lab/tinyroot"
	"banger/internal/lifecycle"
)

// Names of the images that are no distribution's release.
const (
	Tiny  = "tiny"  // a static busybox and nothing else
	Runit = "runit" // Debian with runit-init instead of systemd
)

// runitHook has runit serve the shell that commands of scripts run in. Its stage 1 does without the
// scripts of System V's init: they are not the subject, and under emulation they take half a minute.
const runitHook = `cd "$1/etc/runit" && printf '#!/bin/sh\ninstall -m000 /dev/null /run/runit.stopit\ninstall -m000 /dev/null /run/runit.reboot\n' >1; ` +
	`touch no.emulate.sysv; mkdir -p ../sv/shell; printf '#!/bin/sh\nexec ` + tinyroot.Serve + `\n' >../sv/shell/run; ` +
	`chmod 755 ../sv/shell/run; ln -s /etc/sv/shell runsvdir/default/shell`

// kernelFrom is the release whose kernel the others boot.
const kernelFrom = "debian:12"

// State is the state directory on the disk, as a lab host sees it.
const State = "/scratch/state"

// Names lists the images that end-to-end scripts may use.
func Names() []string { return []string{kernelFrom, Tiny, Runit} }

// diskSize is the disk's virtual size in bytes; the file takes what it holds.
const diskSize = 32 << 30

// Guests makes images and disks in a lab's cache.
type Guests struct{ Lab *lab.Lab }

// Disk returns a disk that holds the images of these names, made where the cache has none. Runs are
// to use a throw-away view of it.
func (g Guests) Disk(ctx context.Context, names ...string) (string, error) {
	key, err := g.key()
	if err != nil {
		return "", err
	}
	catalog := filepath.Join(g.Lab.Cache, "images-"+key)
	ids, err := g.images(ctx, catalog, names)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(ids, "\n")))
	dir := filepath.Join(g.Lab.Cache, "disk-"+hex.EncodeToString(sum[:6]))
	disk := filepath.Join(dir, "guests.xfs")
	return disk, g.Lab.Once(ctx, dir, func(tmp string) error { return g.lay(ctx, catalog, ids, tmp) })
}

// key changes with whatever decides what an image holds: the code that makes it, and the busybox.
func (g Guests) key() (string, error) {
	h := sha256.New()
	for _, pkg := range []string{"imagebuild", "boot", "image", "lab/guests", "lab/tinyroot"} {
		err := filepath.WalkDir(filepath.Join(g.Lab.Source, "internal", pkg), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			fmt.Fprintf(h, "%s %d\n", filepath.Base(path), len(content))
			h.Write(content)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read what makes images: %w", err)
		}
	}
	box, err := busybox()
	if err != nil {
		return "", err
	}
	h.Write(box)
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}

func busybox() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	return tinyroot.Busybox(path)
}

// images makes those that the catalog lacks and returns the ids of all, sorted.
func (g Guests) images(ctx context.Context, catalog string, names []string) ([]string, error) {
	var ids []string
	err := g.Lab.Alone(ctx, catalog, func() error {
		b := &imagebuild.Builder{
			Catalog: &imagebuild.Catalog{Dir: catalog, Damaged: func(dir string, err error) { g.Lab.Say("%s: %v", dir, err) }},
			Run:     run,
		}
		if err := b.Clean(); err != nil {
			return err
		}
		for _, name := range order(names) {
			m, err := g.image(ctx, b, name)
			if err != nil {
				return err
			}
			if slices.Contains(names, name) {
				ids = append(ids, m.ID)
			}
		}
		return nil
	})
	slices.Sort(ids)
	return ids, err
}

// order puts the image whose kernel the others boot first, also where only others were asked for.
func order(names []string) []string {
	out := []string{kernelFrom}
	for _, name := range names {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (g Guests) image(ctx context.Context, b *imagebuild.Builder, name string) (image.Manifest, error) {
	have, err := b.List()
	if err != nil {
		return image.Manifest{}, err
	}
	for _, m := range have {
		if m.Name == name {
			return m, nil
		}
	}
	stage := ""
	report := func(now, _ string) {
		if now != stage {
			stage = now
			g.Lab.Say("image %s: %s", name, now)
		}
	}
	if name != Tiny && name != Runit {
		return b.Pull(ctx, name, report)
	}
	kernel, err := image.Select(have, kernelFrom)
	if err != nil {
		return image.Manifest{}, err
	}
	tree, err := g.tree(ctx, name, b.Dir)
	if err != nil {
		return image.Manifest{}, err
	}
	return b.Import(ctx, lifecycle.ImportRequest{Name: name, Source: name + ".tar", KernelFrom: kernel, Tar: bytes.NewReader(tree)}, report)
}

// tree is the archive that an image is imported from.
func (g Guests) tree(ctx context.Context, name, dir string) ([]byte, error) {
	if name == Tiny {
		box, err := busybox()
		if err != nil {
			return nil, err
		}
		var tree bytes.Buffer
		err = tinyroot.Write(&tree, box)
		return tree.Bytes(), err
	}
	g.Lab.Say("image %s: bootstrap", name)
	file := filepath.Join(dir, ".runit.tar")
	err := run(ctx, []string{"mmdebstrap", "--variant=minbase", "--include=runit-init,busybox-static", "--customize-hook=" + runitHook, "bookworm", file}, nil, func(string) {})
	if err != nil {
		return nil, fault.New(fault.Internal, "%w", err).WithOp("bootstrap image", name)
	}
	tree, err := os.ReadFile(file)
	return tree, errors.Join(err, os.Remove(file))
}

// lay has a lab host put the images onto a new disk. They travel as a sparse archive, since 9p knows
// no holes and would carry every zero of every disk.
func (g Guests) lay(ctx context.Context, catalog string, ids []string, tmp string) error {
	g.Lab.Say("laying out the guests' disk")
	if err := g.Lab.Build(ctx); err != nil {
		return err
	}
	share := filepath.Join(tmp, "share")
	if err := os.Mkdir(share, 0o700); err != nil {
		return err
	}
	argv := append([]string{"tar", "--create", "--sparse", "--file", filepath.Join(share, "images.tar"), "--directory", catalog}, ids...)
	if err := run(ctx, argv, nil, func(string) {}); err != nil {
		return err
	}
	disk := filepath.Join(tmp, "guests.xfs")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, diskSize)); err != nil {
		return err
	}
	var said bytes.Buffer
	status, err := g.Lab.Run(ctx, lab.Run{
		Argv: []string{"sh", "-ec", "mkdir -p -m 700 " + State + "/images; tar --extract --sparse --file /images/images.tar --directory " + State + "/images; sync"},
		Disk: disk, Keep: true, Images: share, Stdout: io.Discard, Stderr: &said,
	})
	if err != nil {
		return err
	}
	if status != 0 {
		return fault.New(fault.Internal, "exit status %d", status).WithOp("lay out the guests' disk", "").WithDetail(said.String())
	}
	return os.RemoveAll(share)
}

// run is what images are built with.
func run(ctx context.Context, argv, env []string, onLine func(string)) error {
	_, err := exec.Runner{}.Run(ctx, exec.Command{Argv: argv, Env: env, OnLine: onLine})
	return err
}
