package imagebuild

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content}
}

func link(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, ""}
}

func hard(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, ""}
}

func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(t testing.TB, tarball []byte) (string, error) {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	return tree, untar(t.Context(), bytes.NewReader(tarball), tree, func(int, int64) {})
}

func TestUntarKeepsWhatARootIsMadeOf(t *testing.T) {
	made := time.Unix(1e9, 0)
	capability := string([]byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // cap_net_raw+ep
	entries := []entry{
		{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: made}, ""},
		{tar.Header{Name: "./tmp/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: made}, ""},
		{tar.Header{Name: "usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 2, ModTime: made}, "su"},
		{tar.Header{Name: "usr/bin/ping", Typeflag: tar.TypeReg, Mode: 0o755, Size: 4, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability}}, "ping"},
		{tar.Header{Name: "home/me", Typeflag: tar.TypeReg, Mode: 0o600, Uid: 1000, Gid: 1001}, ""},
		link("bin", "usr/bin"), link("etc/mtab", "/proc/mounts"), hard("usr/bin/ping6", "/usr/bin/ping"),
		{tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		{tar.Header{Name: "run/pipe", Typeflag: tar.TypeFifo, Mode: 0o622}, ""},
		file("etc/hostname", "old"), file("etc/hostname", "new"), // a later layer
	}
	tree, err := unpack(t, archive(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		".": fs.ModeDir | 0o755, "tmp": fs.ModeDir | fs.ModeSticky | 0o777, "usr/bin/su": fs.ModeSetuid | 0o755, "home/me": 0o600,
		"bin": fs.ModeSymlink | 0o777, "dev/null": fs.ModeDevice | fs.ModeCharDevice | 0o666, "run/pipe": fs.ModeNamedPipe | 0o622,
	} {
		if st, err := os.Lstat(filepath.Join(tree, name)); err != nil || st.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", name, st, err, want)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(tree, "home/me"), &st); err != nil || st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
	if err := unix.Lstat(filepath.Join(tree, "dev/null"), &st); err != nil || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device %d, %v", st.Rdev, err)
	}
	value := make([]byte, 64)
	if n, err := unix.Lgetxattr(filepath.Join(tree, "usr/bin/ping6"), "security.capability", value); err != nil || string(value[:n]) != capability {
		t.Errorf("capability %x, %v", value[:max(n, 0)], err)
	}
	if got, err := os.ReadFile(filepath.Join(tree, "etc/hostname")); err != nil || string(got) != "new" {
		t.Errorf("got %q, %v", got, err)
	}
	if to, err := os.Readlink(filepath.Join(tree, "etc/mtab")); to != "/proc/mounts" {
		t.Errorf("link to %q, %v", to, err)
	}
	for _, name := range []string{".", "tmp", "usr/bin/su"} {
		if st, err := os.Stat(filepath.Join(tree, name)); err != nil || !st.ModTime().Equal(made) {
			t.Errorf("%s: time of %v, %v", name, st, err)
		}
	}
}

func TestUntarStaysInside(t *testing.T) {
	for name, entries := range map[string][]entry{
		"a relative climb":           {file("../../escaped", "x")},
		"an absolute path":           {file("/escaped", "x")},
		"through a link":             {link("way", ".."), file("way/escaped", "x")},
		"through an absolute link":   {link("way", "/tmp"), file("way/escaped-by-banger-test", "x")},
		"through links of links":     {link("a", "b"), link("b", "../.."), file("a/escaped", "x")},
		"over a link to a file":      {link("escaped", "../precious"), file("escaped", "x")},
		"a hard link out":            {hard("escaped", "../precious"), file("escaped", "x")},
		"a hard link by a link":      {link("up", ".."), hard("escaped", "up/precious"), file("escaped", "x")},
		"a directory over a link":    {link("way", ".."), dir("way"), file("way/escaped", "x")},
		"a directory's mode by link": {link("way", "../precious.d"), {tar.Header{Name: "way", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 12345}, ""}},
		"a device by a link":         {link("way", ".."), {tar.Header{Name: "way/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			around := t.TempDir()
			plant(t, around, map[string]string{"precious": "precious", "tree/x": "", "precious.d/x": "x"})
			_ = untar(t.Context(), bytes.NewReader(archive(t, entries...)), filepath.Join(around, "tree"), func(int, int64) {}) // refused or harmless
			var names []string
			left, err := os.ReadDir(around)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				names = append(names, e.Name())
			}
			if d := cmp.Diff([]string{"precious", "precious.d", "tree"}, names); d != "" {
				t.Error(d)
			}
			if got, err := os.ReadFile(filepath.Join(around, "precious")); err != nil || string(got) != "precious" {
				t.Errorf("the file outside now holds %q, %v", got, err)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(around, "precious.d"), &st); err != nil || st.Uid != uint32(os.Getuid()) || st.Mode&0o777 == 0o777 {
				t.Errorf("the directory outside is now %o of %d, %v", st.Mode, st.Uid, err)
			}
			if _, err := os.Lstat("/tmp/escaped-by-banger-test"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it went to /tmp: %v", err)
			}
		})
	}
}

func TestUntarRefuses(t *testing.T) {
	whole := archive(t, file("etc/hostname", strings.Repeat("x", 4096)))
	for name, c := range map[string]struct {
		tarball []byte
		want    string
	}{
		"nothing":                {nil, "the archive is empty"},
		"no archive":             {bytes.Repeat([]byte("hello "), 1000), "the archive cannot be read"},
		"cut short":              {whole[:2000], "unexpected EOF"},
		"a file for a directory": {archive(t, dir("etc"), file("etc/x", ""), file("etc", "x")), `entry "etc": `},
		"broken gzip":            {[]byte("\x1f\x8bnot gzip at all"), "gzip: invalid header"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpack(t, c.tarball)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v (%s), want it to say %q", err, fault.CodeOf(err), c.want)
			}
		})
	}
}

func TestUntarIsBounded(t *testing.T) {
	// A header alone: the refusal comes before a byte of the content is asked for.
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "huge", Typeflag: tar.TypeReg, Mode: 0o644, Size: maxTree + 1, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	tree, err := unpack(t, b.Bytes())
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "it holds more than") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(tree); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestUntarEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(syscall.EINTR)
	if err := untar(ctx, bytes.NewReader(archive(t, file("x", ""))), t.TempDir(), func(int, int64) {}); !errors.Is(err, syscall.EINTR) {
		t.Errorf("got %v", err)
	}
}

func TestUntarUnpacks(t *testing.T) {
	plain := archive(t, file("etc/hostname", "name"))
	packed := func(writer func(io.Writer) (io.WriteCloser, error)) []byte {
		var b bytes.Buffer
		w, err := writer(&b)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(plain)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	stored := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tarball := range map[string][]byte{
		"plain": plain,
		"gzip":  packed(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zstd":  packed(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz":    stored("root.tar.xz"), "bzip2": stored("root.tar.bz2"), "sparse": stored("sparse.tar"),
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := unpack(t, tarball)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(tree, "etc/hostname"))
			if err != nil || strings.Trim(string(got), "\x00") != "name" {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
}

func FuzzUntar(f *testing.F) {
	f.Add(archive(f, dir("etc"), file("etc/hostname", "x"), link("l", "etc"), hard("h", "etc/hostname")))
	f.Add(archive(f, link("way", ".."), file("way/escaped", "x")))
	f.Fuzz(func(t *testing.T, tarball []byte) {
		tree, _ := unpack(t, tarball) // refused or harmless
		left, err := os.ReadDir(filepath.Dir(tree))
		if err != nil || len(left) != 1 {
			t.Errorf("beside the tree: %v, %v", left, err)
		}
	})
}
