package imagebuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger/internal/boot"
	"banger/internal/boot/kmod"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// Run executes a program of the host; each line that it prints goes to onLine. Its error carries the
// arguments and the end of what it printed.
type Run func(ctx context.Context, argv, env []string, onLine func(string)) error

// Builder makes images. It implements lifecycle.Images.
type Builder struct {
	*Catalog
	Run    Run
	Mirror string // Debian mirror; empty leaves the choice to mmdebstrap

	placing sync.Mutex // between an image's appearance and older ones giving up its name
}

// recipe is part of every image's identity: raise it when the steps below change what an image holds.
const recipe = 5

// Sizes of the file systems in bytes. They are sparse: an image takes what it holds.
const (
	minRoot  = 4 * vm.GiB
	seedSize = 64 * vm.MiB // of a new image's; one that is made anew is as large as it was
)

// Pull bootstraps a Debian release.
func (b *Builder) Pull(ctx context.Context, name string, report lifecycle.StageReport) (image.Manifest, error) {
	rel, err := resolve(name)
	if err != nil {
		return image.Manifest{}, err
	}
	return b.build(ctx, "pull image", rel.name, func(w *work) error {
		report("bootstrap", "starting")
		epoch := time.Now().UTC().Truncate(24 * time.Hour) // two pulls of one day differ only in what changed
		env := []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix()), "INITRD=No"}
		var said lastLines
		err := b.Run(ctx, bootstrap(rel.suite, b.Mirror, w.tree), env, func(line string) {
			said.add(line)
			if text, ok := chatter(line); ok {
				report("bootstrap", printable(text, 100))
			}
		})
		if _, told := errors.AsType[*fault.Error](err); err != nil && !told {
			err = fault.New(fault.Unavailable, "the bootstrap failed: %w", err).WithDetail(said.String()).
				WithHint("see its last lines; a network or mirror that cannot be reached is the usual cause")
		}
		if err != nil {
			return err
		}
		report("kernel", "")
		if err := takeKernel(w); err != nil {
			return err
		}
		if err := furnish(w.tree); err != nil {
			return err
		}
		w.m.Source = "debian " + rel.suite
		return b.lay(ctx, w, report)
	})
}

// Import lays a foreign tree into an image with another image's kernel.
func (b *Builder) Import(ctx context.Context, r lifecycle.ImportRequest, report lifecycle.StageReport) (image.Manifest, error) {
	return b.build(ctx, "import image", r.Name, func(w *work) error {
		report("unpack", "")
		digest := sha256.New()
		_, _ = fmt.Fprintln(digest, r.Name) // one archive under two names is two images
		stream := io.TeeReader(r.Tar, digest)
		if err := untar(ctx, stream, w.tree, func(files int, size int64) {
			report("unpack", fmt.Sprintf("%d files, %s", files, vm.FormatSize(size)))
		}); err != nil {
			return err
		}
		// The padding after an archive's end: how much of it was read already is chance.
		if _, err := io.Copy(io.Discard, io.LimitReader(stream, maxTree)); err != nil {
			return err
		}
		w.content = digest.Sum(nil)
		report("kernel", r.KernelFrom.Name)
		from := filepath.Join(b.Dir, r.KernelFrom.ID)
		for _, file := range []string{image.FileKernel, image.FileModules, image.FileKernelConfig} {
			if err := os.Link(filepath.Join(from, file), filepath.Join(w.dir, file)); err != nil {
				return err
			}
		}
		w.m.Arch, w.m.Kernel, w.m.Source = r.KernelFrom.Arch, r.KernelFrom.Kernel, "import "+printable(r.Source, 200)
		return b.lay(ctx, w, report)
	})
}

// work is an image under way.
type work struct {
	name    string
	dir     string // becomes the image's directory
	tree    string // root file system as files
	content []byte // digest of what the tree was made from, when its packages do not tell
	m       image.Manifest
}

// build runs steps in a directory that is never listed and gives the result its place.
func (b *Builder) build(ctx context.Context, op, name string, steps func(*work) error) (_ image.Manifest, err error) {
	defer func() { err = explain(err, op, name) }()
	var made image.Manifest
	err = b.scratch(func(dir string) (err error) {
		made, err = b.buildIn(ctx, dir, name, steps)
		return err
	})
	return made, err
}

// scratch has use work in a directory that is never listed. What is left in it then goes.
func (b *Builder) scratch(use func(dir string) error) (err error) {
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.Dir, ".build-")
	if err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() {
		_ = lock.Close()
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // tells Clean that someone works here
		return err
	}
	return use(dir)
}

func (b *Builder) buildIn(ctx context.Context, dir, name string, steps func(*work) error) (image.Manifest, error) {
	w := &work{name: name, dir: dir, tree: filepath.Join(dir, "tree")}
	// It becomes the guest's /, whatever the daemon's umask is.
	if err := errors.Join(os.Mkdir(w.tree, 0o755), os.Chmod(w.tree, 0o755)); err != nil { //nolint:gosec // all of a guest's users must enter it
		return image.Manifest{}, err
	}
	w.m = image.Manifest{Name: name, Arch: runtime.GOARCH, Created: time.Now().UTC().Truncate(time.Second), Tools: map[string]string{}}
	if err := steps(w); err != nil {
		return image.Manifest{}, err
	}
	return b.place(ctx, w)
}

// explain gives what is no fault yet the shape that a user reads. A full disk may be met by a program,
// of which only the words are left.
func explain(err error, op, name string) error {
	f, told := errors.AsType[*fault.Error](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), strings.Contains(strings.ToLower(err.Error()), "no space left on device"),
		told && strings.Contains(strings.ToLower(f.Detail), "no space left on device"):
		return fault.System(syscall.ENOSPC, op, name)
	case told:
		return f.InOp(op, name)
	default:
		return fault.System(err, op, name)
	}
}

// takeKernel moves the boot set's kernel, modules and configuration out of the tree. The tree keeps
// its own copy of the modules, which the guest may load later.
func takeKernel(w *work) error {
	kernels, err := filepath.Glob(filepath.Join(w.tree, "boot", "vmlinuz-*"))
	if err != nil {
		return err
	}
	if len(kernels) != 1 {
		return fault.New(fault.Invalid, "the tree holds %d kernels in /boot, want one", len(kernels)).WithOp("read kernel", "")
	}
	version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	packed, err := os.ReadFile(kernels[0])
	if err != nil {
		return err
	}
	kernel, err := boot.Vmlinux(packed)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(w.tree)
	if err != nil {
		return err
	}
	defer root.Close()
	place, err := resolveIn(root, "lib/modules/"+version)
	if err != nil {
		return fmt.Errorf("modules of kernel %s: %w", version, err)
	}
	mods, err := kmod.Open(os.DirFS(filepath.Join(w.tree, place)))
	if err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(w.tree, "boot", "config-"+version))
	if err != nil {
		return err
	}
	if err := boot.CheckPreflight(version, bytes.NewReader(config), mods.Has); err != nil {
		return err
	}
	var archive bytes.Buffer
	names, err := kmod.Archive(&archive, mods, boot.Modules()...)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(kernel)
	w.m.Kernel = image.Kernel{Version: version, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(kernel)), Modules: names}
	set, err := os.OpenRoot(w.dir)
	if err != nil {
		return err
	}
	defer set.Close()
	return errors.Join(
		set.WriteFile(image.FileKernel, kernel, 0o600),
		set.WriteFile(image.FileModules, archive.Bytes(), 0o600),
		set.WriteFile(image.FileKernelConfig, config, 0o600),
	)
}

// lay turns the tree into the image's disks and describes them.
func (b *Builder) lay(ctx context.Context, w *work, report lifecycle.StageReport) error {
	root, err := os.OpenRoot(w.tree)
	if err != nil {
		return err
	}
	defer root.Close()
	if w.m.Init, err = findInit(root); err != nil {
		return err
	}
	w.m.OS, w.m.Services = prettyName(root), services(root)
	if w.m.Packages, w.m.PackagesSHA256, err = dpkg(root); err != nil {
		return err
	}
	id := sha256.Sum256(fmt.Appendf(nil, "%d %s %s %s %s %x", recipe, w.m.Arch, w.m.Source, w.m.PackagesSHA256, w.m.Kernel.SHA256, w.content))
	w.m.ID = hex.EncodeToString(id[:6])

	report("root disk", "")
	if w.m.Root, err = b.mkfs(ctx, w.m, "root", w.tree, filepath.Join(w.dir, image.FileRoot), minRoot, 16*vm.KiB); err != nil {
		return err
	}
	report("work seed", "")
	seed := filepath.Join(w.dir, image.FileWorkSeed)
	if w.m.WorkSeed.Disk, err = b.laySeed(ctx, w.m, w.dir, seed); err != nil {
		return err
	}
	if w.m.WorkSeed.Fingerprint, err = fingerprint(seed); err != nil { // a directory's renaming does not touch it
		return err
	}
	report("seal", "")
	b.tools(ctx, w)
	return os.RemoveAll(w.tree)
}

// tools notes the versions of the programs that made the image.
func (b *Builder) tools(ctx context.Context, w *work) {
	for tool, argv := range map[string][]string{"mmdebstrap": {"mmdebstrap", "--version"}, "mke2fs": {"mke2fs", "-V"}} {
		_ = b.Run(ctx, argv, nil, func(line string) { // a tool that was not needed may be absent
			if w.m.Tools[tool] == "" {
				w.m.Tools[tool] = printable(line, 100)
			}
		})
	}
}

// place syncs the image and renames it to where it is listed. A pull that found nothing new has made
// the image that is there already: then that one stays, and takes the name.
func (b *Builder) place(ctx context.Context, w *work) (image.Manifest, error) {
	b.placing.Lock()
	defer b.placing.Unlock()
	if err := ctx.Err(); err != nil {
		return image.Manifest{}, context.Cause(ctx)
	}
	if err := writeManifest(w.dir, w.m); err != nil {
		return image.Manifest{}, err
	}
	if err := syncTree(w.dir); err != nil {
		return image.Manifest{}, err
	}
	err := os.Rename(w.dir, filepath.Join(b.Dir, w.m.ID))
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		if w.m, err = readManifest(filepath.Join(b.Dir, w.m.ID)); err == nil {
			w.m.Name = w.name
			err = writeManifest(filepath.Join(b.Dir, w.m.ID), w.m)
		}
	}
	if err != nil {
		return image.Manifest{}, err
	}
	return w.m, errors.Join(b.yield(w.m), syncDir(b.Dir))
}

// yield takes the name of the newest image from older ones: "debian:12" becomes "debian:12@" and the
// id. VMs hold their image by its id and notice nothing.
func (b *Builder) yield(newest image.Manifest) error {
	all, err := b.List()
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Name != newest.Name || other.ID == newest.ID {
			continue
		}
		other.Name += "@" + other.ID
		if err := writeManifest(filepath.Join(b.Dir, other.ID), other); err != nil {
			return err
		}
	}
	return nil
}

func syncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncDir(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// syncDir makes a file or a directory's entries durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lastLines keeps the end of a program's output for an error.
type lastLines []string

func (l *lastLines) add(line string) {
	*l = append(*l, printable(line, 200))
	if len(*l) > 10 {
		*l = (*l)[1:]
	}
}

func (l *lastLines) String() string { return strings.Join(*l, "\n") }
