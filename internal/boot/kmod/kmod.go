// Package kmod reads a kernel's tree of modules, lib/modules/<version>: which modules a wanted one
// needs, in which order they load, and their uncompressed content.
package kmod

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"banger/internal/boot/cpio"
	"banger/internal/fault"
)

// maxModule bounds an unpacked module; the largest of a stock kernel has about 20 MiB.
const maxModule = 256 << 20

// Tree is one kernel's modules.
type Tree struct {
	fsys    fs.FS
	paths   map[string]string   // module name to path in the tree
	deps    map[string][]string // path to the paths it needs
	builtin map[string]bool     // names of what is in the kernel itself
}

// Open reads the indexes of a tree. fsys is the directory lib/modules/<version>.
func Open(fsys fs.FS) (*Tree, error) {
	t := &Tree{fsys: fsys, paths: map[string]string{}, deps: map[string][]string{}, builtin: map[string]bool{}}
	err := lines(fsys, "modules.dep", func(line string) error {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("malformed line %q", line)
		}
		t.paths[name(file)] = file
		t.deps[file] = strings.Fields(needs)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = lines(fsys, "modules.builtin", func(line string) error {
		t.builtin[name(line)] = true
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // an old kernel: nothing is known to be built in
	}
	return t, err
}

// name is a module's name as modprobe knows it: no directory, no suffix, underscores.
func name(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// Has reports whether the kernel has the module, built in or loadable.
func (t *Tree) Has(module string) bool {
	return t.builtin[name(module)] || t.paths[name(module)] != ""
}

// Closure returns the paths of the wanted modules and of all that they need, in load order. What is
// built in needs no file. Modules that the kernel lacks are named together in one fault.
func (t *Tree) Closure(wanted ...string) ([]string, error) {
	var order, missing []string
	seen := map[string]bool{}
	var add func(file string)
	add = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		// depmod lists what a module needs with the deepest need last.
		for _, need := range slices.Backward(t.deps[file]) {
			add(need)
		}
		order = append(order, file)
	}
	for _, w := range wanted {
		switch file := t.paths[name(w)]; {
		case file != "":
			add(file)
		case !t.builtin[name(w)]:
			missing = append(missing, w)
		}
	}
	if len(missing) > 0 {
		return nil, fault.New(fault.Incompatible, "it lacks modules: %s", strings.Join(missing, ", ")).WithOp("use kernel", "").
			WithHint("use a kernel that has them built in or as modules")
	}
	return order, nil
}

// Read returns a module's content, unpacked by what its suffix says.
func (t *Tree) Read(file string) ([]byte, error) {
	raw, err := fs.ReadFile(t.fsys, file)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	switch path.Ext(file) {
	case ".ko":
		return raw, nil
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(raw), 0)
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(raw))
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = errors.New("its compression is unknown")
	}
	if err != nil {
		return nil, fmt.Errorf("unpack module %s: %w", file, err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("unpack module %s: %w", file, err)
	}
	if len(out) > maxModule {
		return nil, fmt.Errorf("unpack module %s: it is larger than %d bytes", file, maxModule)
	}
	return out, nil
}

func lines(fsys fs.FS, file string, each func(string) error) error {
	f, err := fsys.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	sc := bufio.NewScanner(io.LimitReader(f, 64<<20))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if strings.TrimSpace(sc.Text()) == "" {
			continue
		}
		if err := each(sc.Text()); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return sc.Err()
}

// Archive writes a cpio archive of the wanted modules and all that they need, unpacked, and of the
// file /modules, which lists their paths in load order. It returns the modules' names in that order.
func Archive(w io.Writer, t *Tree, wanted ...string) ([]string, error) {
	files, err := t.Closure(wanted...)
	if err != nil {
		return nil, err
	}
	c := cpio.NewWriter(w)
	var names []string
	var list strings.Builder
	for _, file := range files {
		content, err := t.Read(file)
		if err != nil {
			return nil, err
		}
		names = append(names, name(file))
		place := "/lib/modules/" + name(file) + ".ko"
		fmt.Fprintln(&list, place)
		if err := c.File(place, 0o644, int64(len(content)), bytes.NewReader(content)); err != nil {
			return nil, err
		}
	}
	if err := c.File("modules", 0o644, int64(list.Len()), strings.NewReader(list.String())); err != nil {
		return nil, err
	}
	return names, c.Close()
}
