package imagebuild_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/imagebuild"
)

// put writes a whole image.
func put(t *testing.T, dir, id, name string, age time.Duration) {
	t.Helper()
	at := filepath.Join(dir, id)
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	m := image.Manifest{
		ID: id, Name: name, Arch: "amd64", Created: time.Unix(1e9, 0).Add(-age), Init: "/sbin/init",
		Root: image.Disk{Size: 1 << 20}, WorkSeed: image.Seed{Disk: image.Disk{Size: 1 << 20}},
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{image.FileManifest, image.FileRoot, image.FileWorkSeed, image.FileKernel, image.FileModules} {
		if err := os.WriteFile(filepath.Join(at, file), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func ids(t *testing.T, c *imagebuild.Catalog) []string {
	t.Helper()
	all, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range all {
		out = append(out, m.ID)
	}
	return out
}

func TestListShowsWholeImagesNewestFirst(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "aaaaaaaaaaaa", "debian:12", 2*time.Hour)
	put(t, dir, "bbbbbbbbbbbb", "debian:13", time.Hour)
	put(t, dir, ".build-1", "half", 0)
	put(t, dir, ".deleted-cccccccccccc", "going", 0)
	put(t, dir, "notanid", "stranger", 0)

	damage := map[string]func(at string) error{
		"d00000000001": func(at string) error { return os.WriteFile(filepath.Join(at, image.FileManifest), []byte("{"), 0o600) },
		"d00000000002": func(at string) error { return os.Remove(filepath.Join(at, image.FileManifest)) },
		"d00000000003": func(at string) error { return os.Remove(filepath.Join(at, image.FileKernel)) },
		"d00000000004": func(at string) error {
			return os.WriteFile(filepath.Join(at, image.FileManifest), []byte(`{"id":"d00000000004"}`), 0o600)
		},
		"d00000000005": func(at string) error {
			return os.Rename(filepath.Join(dir, "aaaaaaaaaaaa", "copy"), filepath.Join(at, image.FileManifest))
		},
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "aaaaaaaaaaaa", image.FileManifest))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "aaaaaaaaaaaa", "copy"), manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	for id, harm := range damage {
		put(t, dir, id, "damaged", 0)
		if err := harm(filepath.Join(dir, id)); err != nil {
			t.Fatal(err)
		}
	}
	told := map[string]error{}
	c := &imagebuild.Catalog{Dir: dir, Damaged: func(dir string, err error) { told[filepath.Base(dir)] = err }}
	if d := cmp.Diff([]string{"bbbbbbbbbbbb", "aaaaaaaaaaaa"}, ids(t, c)); d != "" {
		t.Error(d)
	}
	for id := range damage {
		if told[id] == nil {
			t.Errorf("nobody was told that %s is damaged", id)
		}
	}
	if len(told) != len(damage) {
		t.Errorf("told of %v", told)
	}
}

func TestNoDirectoryIsNoImages(t *testing.T) {
	c := &imagebuild.Catalog{Dir: filepath.Join(t.TempDir(), "none")}
	if got := ids(t, c); got != nil {
		t.Errorf("got %v", got)
	}
	if err := c.Clean(); err != nil {
		t.Error(err)
	}
}

func TestDelete(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "aaaaaaaaaaaa", "debian:12", 0)
	put(t, dir, ".deleted-aaaaaaaaaaaa", "half of an earlier removal", 0)
	c := &imagebuild.Catalog{Dir: dir}
	for range 2 { // gone is success
		if err := c.Delete("aaaaaaaaaaaa"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	for _, id := range []string{"", ".", "..", "../aaaaaaaaaaaa", "debian:12"} {
		if err := c.Delete(id); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

func TestCleanSparesWhatIsBeingBuilt(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "aaaaaaaaaaaa", "debian:12", 0)
	put(t, dir, ".build-dead", "half", 0)
	put(t, dir, ".build-alive", "half", 0)
	put(t, dir, ".deleted-bbbbbbbbbbbb", "going", 0)
	builder, err := os.Open(filepath.Join(dir, ".build-alive"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(builder.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c := &imagebuild.Catalog{Dir: dir}
	left := func() string {
		if err := c.Clean(); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	if got := left(); got != ".build-alive aaaaaaaaaaaa" {
		t.Errorf("left %s", got)
	}
	if err := builder.Close(); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != "aaaaaaaaaaaa" {
		t.Errorf("once its builder was gone: left %s", got)
	}
}
