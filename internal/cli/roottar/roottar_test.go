package roottar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/cli/roottar"
	"banger/internal/fault"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(outside, []byte("secret"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "etc/empty"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "etc/hosts"), []byte("127.0.0.1"), 0o644))
	must(t, os.Link(filepath.Join(dir, "etc/hosts"), filepath.Join(dir, "etc/hosts2")))
	must(t, os.WriteFile(filepath.Join(dir, "su"), []byte("x"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, "su"), 0o755|os.ModeSetuid))
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	must(t, os.Symlink("/etc", filepath.Join(dir, "dirlink")))

	var buf bytes.Buffer
	must(t, roottar.Write(t.Context(), &buf, dir))
	var got []string
	for tr := tar.NewReader(&buf); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		body, err := io.ReadAll(tr)
		must(t, err)
		if h.Uname+h.Gname != "" || h.Uid != os.Getuid() {
			t.Errorf("%s: owner %d %q", h.Name, h.Uid, h.Uname)
		}
		got = append(got, fmt.Sprintf("%c %s %s|%s %o", h.Typeflag, h.Name, h.Linkname, body, h.Mode&0o6000))
	}
	want := []string{
		"5 ./ | 0",
		"2 ./dirlink /etc| 0",
		"5 ./etc/ | 0",
		"5 ./etc/empty/ | 0",
		"0 ./etc/hosts |127.0.0.1 0",
		"1 ./etc/hosts2 ./etc/hosts| 0",
		"2 ./link " + outside + "| 0",
		"0 ./su |x 4000",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWriteRefuses(t *testing.T) {
	err := roottar.Write(t.Context(), io.Discard, filepath.Join(t.TempDir(), "none"))
	if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), `read tree "`) {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := roottar.Write(ctx, io.Discard, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	broken := errors.New("pipe broke")
	if err := roottar.Write(t.Context(), failing{broken}, t.TempDir()); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
