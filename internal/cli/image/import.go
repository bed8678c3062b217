package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/roottar"
	"banger/internal/fault"
	nouns "banger/internal/image"
)

func newImport(a *app.App) *cobra.Command {
	var name, kernelFrom string
	cmd := &cobra.Command{
		Use:   "import DIR|TARBALL|-",
		Short: "Make an image of any root file system",
		Long: `Make an image of a root file system: a directory, a tarball, or a tar stream on standard input.
It is read here, as you, and streamed to the daemon; owners, modes, hard links, devices and file
capabilities are kept, so a directory is best read with sudo. The kernel is taken from an image that
is there already. The tree must hold an init.`,
		Example: `  banger image import rootfs.tar.zst --kernel-from debian:12
  sudo banger image import ./rootfs --name mine --kernel-from debian:12
  docker export box | banger image import - --name box --kernel-from debian:12`,
		Args: app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if kernelFrom == "" {
				return fault.New(fault.Invalid, "it needs a kernel to boot").WithOp("import image", args[0]).
					WithHint("take that of an image you have, with --kernel-from; `banger image list` shows them")
			}
			image, err := imageName(args[0], name)
			if err != nil {
				return err
			}
			tree, err := open(ctx, a, args[0])
			if err != nil {
				return err
			}
			stream := &upload{ReadCloser: tree}
			defer tree.Close()
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			begun, err := c.ImportImage(ctx, api.ImportImage{Name: image, KernelFrom: kernelFrom, Source: filepath.Base(args[0])}, stream)
			if err == nil {
				err = finish(ctx, a, c, begun, false)
			}
			return stream.explain(ctx, err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the image's `NAME` (default: the file's)")
	f.StringVar(&kernelFrom, "kernel-from", "", "the `IMAGE` whose kernel it boots")
	_ = cmd.RegisterFlagCompletionFunc("kernel-from", a.Complete(-1, app.Images)) // fails only for a flag that is not there
	return cmd
}

// imageName derives "rootfs" from "./rootfs.tar.zst" unless a name was given.
func imageName(source, name string) (string, error) {
	if name == "" && source == "-" {
		return "", fault.New(fault.Invalid, "a stream has no name to take").WithOp("import image", "").WithHint("give it one with --name")
	}
	if name == "" {
		path, err := filepath.Abs(source)
		if err != nil {
			return "", fault.New(fault.Invalid, "%w", err).WithOp("import image", source)
		}
		name = strings.ToLower(filepath.Base(path))
		for _, suffix := range []string{".gz", ".tgz", ".xz", ".zst", ".lz4", ".bz2", ".tar"} {
			name = strings.TrimSuffix(name, suffix)
		}
	}
	return name, nouns.CheckName(name)
}

// upload remembers why reading failed: the daemon only sees that the stream broke off.
type upload struct {
	io.ReadCloser
	mu  sync.Mutex
	err error
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.err = err
	}
	return n, err
}

// explain puts the cause in the place of what the daemon made of it. Unlike other operations an import
// cannot go on without the command that began it.
func (u *upload) explain(ctx context.Context, err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fault.New(fault.Canceled, "the upload was broken off, so nothing was imported")
	case u.err != nil:
		return u.err
	default:
		return err
	}
}

// open returns the tar stream of a source. A directory's is made while it is read.
func open(ctx context.Context, a *app.App, source string) (io.ReadCloser, error) {
	if source == "-" {
		if a.IO.InTTY {
			return nil, fault.New(fault.Invalid, "standard input is a terminal, not a tar stream").WithOp("import image", "")
		}
		return io.NopCloser(a.IO.In), nil
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err).WithOp("import image", source).WithHint("name a directory, a tarball, or - for standard input")
	}
	if !info.IsDir() {
		f, err := os.Open(source)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%w", err).WithOp("import image", source)
		}
		return f, nil
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(roottar.Write(ctx, w, source)) }()
	return r, nil
}
