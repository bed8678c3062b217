package imagebuild_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/host/block"
	"banger/internal/image"
	"banger/internal/imagebuild"
	"banger/internal/vm"
)

// seeded is a catalog with one image, and where that has its work seed.
func seeded(t *testing.T, h host) (b *imagebuild.Builder, m image.Manifest, seed string) {
	t.Helper()
	b = builder(t, h)
	m, err := b.Pull(t.Context(), "debian:12", quiet)
	if err != nil {
		t.Fatal(err)
	}
	return b, m, filepath.Join(b.Dir, m.ID, image.FileWorkSeed)
}

// noted is the image as its manifest has it.
func noted(t *testing.T, b *imagebuild.Builder) image.Manifest {
	t.Helper()
	list, err := b.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%d images, %v", len(list), err)
	}
	return list[0]
}

// touched has a seed's file be another, with the bytes that it had.
func touched(t *testing.T, seed string) {
	t.Helper()
	if _, err := (block.Disks{}).Copy(t.Context(), seed, seed+".copy", 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(seed+".copy", seed); err != nil {
		t.Fatal(err)
	}
}

func scribble(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("x"), at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestASeedIsHealed holds what is taken for the seed that an image was made with, and that healing makes one of it.
func TestASeedIsHealed(t *testing.T) {
	remove := func(t *testing.T, seed string) {
		if err := os.Remove(seed); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		old   bool // its manifest has no fingerprint
		spoil func(t *testing.T, seed string)
		wrong string // of it; "" where it is of use
	}{
		"as it was":      {spoil: func(*testing.T, string) {}},
		"copied":         {spoil: touched},
		"missing":        {spoil: remove, wrong: "its work seed is missing"},
		"written to":     {spoil: func(t *testing.T, seed string) { scribble(t, seed, 30*vm.MiB) }, wrong: "its work seed was altered"},
		"longer":         {spoil: func(t *testing.T, seed string) { scribble(t, seed, vm.GiB) }, wrong: "its work seed was altered"},
		"old, as it was": {old: true, spoil: func(*testing.T, string) {}},
		"old, copied":    {old: true, spoil: touched},
		"old, missing":   {old: true, spoil: remove, wrong: "its work seed is missing"},
		"old, longer":    {old: true, spoil: func(t *testing.T, seed string) { scribble(t, seed, vm.GiB) }, wrong: "its work seed was altered"},
	} {
		t.Run(name, func(t *testing.T) {
			b, m, seed := seeded(t, host{})
			if c.old {
				strip(t, filepath.Join(b.Dir, m.ID))
			}
			c.spoil(t, seed)
			err := b.CheckSeed(m.ID)
			if (err != nil) != (c.wrong != "") || err != nil && (err.Error() != c.wrong || !fault.Is(err, fault.Corrupt)) {
				t.Errorf("it is said to be %v", err)
			}
			made, err := b.HealSeed(t.Context(), m.ID)
			if made != (c.wrong != "") || err != nil {
				t.Errorf("healed: %v, %v", made, err)
			}
			if err := b.CheckSeed(m.ID); err != nil {
				t.Errorf("after that: %v", err)
			}
			out(t, "e2fsck", "-fn", seed)
			healed := noted(t, b)
			if is, err := block.Identify(seed); err != nil || !is.Same(healed.WorkSeed.Fingerprint.File) {
				t.Errorf("noted is %+v, it is %+v, %v", healed.WorkSeed.Fingerprint, is, err)
			}
			if c.wrong == "" && healed.WorkSeed.Fingerprint.SHA256 != m.WorkSeed.Fingerprint.SHA256 {
				t.Error("it was made anew")
			}
			m.WorkSeed.Fingerprint, healed.WorkSeed.Fingerprint = nil, nil
			m.WorkSeed.Allocated, healed.WorkSeed.Allocated = 0, 0
			if d := cmp.Diff(m, healed); d != "" {
				t.Errorf("it is another image: %s", d)
			}
			if d := cmp.Diff([]string{m.ID}, names(t, b.Dir)); d != "" {
				t.Error(d)
			}
			if again, err := b.HealSeed(t.Context(), m.ID); again || err != nil {
				t.Errorf("for a second time: %v, %v", again, err)
			}
		})
	}
}

// strip makes an image's manifest one of before there were fingerprints.
func strip(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, image.FileManifest)
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(body), `,
    "fingerprint": {`)
	_, after, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		t.Fatalf("there is none in %s", body)
	}
	if err := os.WriteFile(path, []byte(before+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAMadeSeedIsAsTheImages holds that a disk which was generated is the one that a clone would have been.
func TestAMadeSeedIsAsTheImages(t *testing.T) {
	b, m, seed := seeded(t, host{})
	made := filepath.Join(t.TempDir(), "work.ext4")
	if err := b.MakeSeed(t.Context(), m.ID, made); err != nil {
		t.Fatal(err)
	}
	out(t, "e2fsck", "-fn", made)
	for _, asked := range []string{"ls -lp /", "cat /.bashrc"} {
		if got, want := out(t, "debugfs", "-R", asked, made), out(t, "debugfs", "-R", asked, seed); got != want {
			t.Errorf("%s: %s\nwant %s", asked, got, want)
		}
	}
	if got, want := field(t, made, "Block count"), field(t, seed, "Block count"); got != want {
		t.Errorf("it has %d blocks, the image's %d", got, want)
	}
	if info, err := os.Stat(made); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if d := cmp.Diff([]string{m.ID}, names(t, b.Dir)); d != "" {
		t.Error(d)
	}
}

// TestASeedThatCannotBeHealedStays fails each program that makes one.
func TestASeedThatCannotBeHealedStays(t *testing.T) {
	for _, tool := range []string{"mke2fs", "debugfs", "e2fsck"} {
		t.Run(tool, func(t *testing.T) {
			broken := false
			b, m, seed := seeded(t, host{fail: func(argv []string, _ func(string)) error {
				if broken && argv[0] == tool {
					return errors.New("it broke")
				}
				return nil
			}})
			scribble(t, seed, 30*vm.MiB)
			broken = true
			was, err := block.Identify(seed)
			if err != nil {
				t.Fatal(err)
			}
			made, err := b.HealSeed(t.Context(), m.ID)
			if made || err == nil || err.Error() != `heal work seed of image "debian:12": it broke` {
				t.Errorf("healed: %v, %v", made, err)
			}
			if is, err := block.Identify(seed); err != nil || !is.Same(was) {
				t.Errorf("it was touched: %+v, %v", is, err)
			}
			if left := names(t, b.Dir); !slices.Equal(left, []string{m.ID}) {
				t.Errorf("left behind: %v", left)
			}
			broken = false
			if made, err := b.HealSeed(t.Context(), m.ID); !made || err != nil {
				t.Errorf("then: %v, %v", made, err)
			}
		})
	}
}

// TestAnImageThatIsGoneNeedsNoSeed holds that healing behind a create minds no deletion.
func TestAnImageThatIsGoneNeedsNoSeed(t *testing.T) {
	if made, err := builder(t, host{}).HealSeed(t.Context(), "0123456789ab"); made || err != nil {
		t.Errorf("%v, %v", made, err)
	}
}
