package imagebuild_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"banger/internal/fault"
	"banger/internal/host/exec"
	"banger/internal/image"
	"banger/internal/imagebuild"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const kernelConfig = `CONFIG_BLK_DEV_INITRD=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_ACPI=y
CONFIG_VIRTIO_MMIO=y
CONFIG_VIRTIO_BLK=y
CONFIG_EXT4_FS=y
CONFIG_VIRTIO_NET=m
CONFIG_VIRTIO_VSOCKETS=y
CONFIG_HW_RANDOM_VIRTIO=y
CONFIG_VIRTIO_BALLOON=y
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_INET=y
CONFIG_UNIX=y
CONFIG_CGROUPS=y
CONFIG_FUTEX=y
CONFIG_EPOLL=y
CONFIG_SIGNALFD=y
CONFIG_TIMERFD=y
CONFIG_INOTIFY_USER=y
CONFIG_FHANDLE=y
`

// debian is what stands in for a bootstrapped tree.
func debian(t *testing.T) map[string]string {
	t.Helper()
	var kernel bytes.Buffer
	h := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: 64, Phentsize: 56, Shentsize: 64,
	}
	if err := binary.Write(&kernel, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	builtin := ""
	for _, m := range []string{"virtio_mmio", "virtio_blk", "vmw_vsock_virtio_transport", "virtio_rng", "virtio_balloon", "ext4"} {
		builtin += "kernel/" + m + ".ko\n"
	}
	return map[string]string{
		"usr/sbin/init": "init", "etc/os-release": "PRETTY_NAME=\"Debian\"\n", "etc/machine-id": "uninitialized\n",
		"etc/systemd/system/multi-user.target.wants/ssh.service": "unit",
		"var/lib/dpkg/status": "Package: systemd\nStatus: install ok installed\nVersion: 252\nArchitecture: amd64\n",
		"boot/vmlinuz-6.1.0":  kernel.String(), "boot/config-6.1.0": kernelConfig,
		"usr/lib/modules/6.1.0/modules.dep":        "kernel/failover.ko:\nkernel/virtio_net.ko: kernel/failover.ko\n",
		"usr/lib/modules/6.1.0/modules.builtin":    builtin,
		"usr/lib/modules/6.1.0/kernel/failover.ko": "failover", "usr/lib/modules/6.1.0/kernel/virtio_net.ko": "virtio_net",
	}
}

// host runs the real mke2fs, and instead of mmdebstrap writes a tree.
type host struct {
	t    *testing.T
	tree func() map[string]string
	fail func(argv []string, onLine func(string)) error
}

func (h host) run(ctx context.Context, argv, env []string, onLine func(string)) error {
	if h.fail != nil {
		if err := h.fail(argv, onLine); err != nil {
			return err
		}
	}
	if argv[0] != "mmdebstrap" {
		_, err := exec.Runner{}.Run(ctx, exec.Command{Argv: argv, Env: env, OnLine: onLine})
		return err
	}
	if len(argv) == 2 { // --version
		onLine("mmdebstrap 1.3.5")
		return nil
	}
	onLine("I: installing packages...")
	dir := argv[slices.Index(argv, "bookworm")+1]
	for name, content := range h.tree() {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755)); err != nil {
			return err
		}
	}
	return errors.Join(os.Symlink("usr/lib", filepath.Join(dir, "lib")), os.Symlink("usr/sbin", filepath.Join(dir, "sbin")))
}

func builder(t *testing.T, h host) *imagebuild.Builder {
	t.Helper()
	h.t = t
	if h.tree == nil {
		h.tree = func() map[string]string { return debian(t) }
	}
	damaged := func(dir string, err error) { t.Errorf("%s is damaged: %v", dir, err) }
	return &imagebuild.Builder{Catalog: &imagebuild.Catalog{Dir: filepath.Join(t.TempDir(), "images"), Damaged: damaged}, Run: h.run}
}

func quiet(string, string) {}

// out is what a program prints.
func out(t *testing.T, argv ...string) string {
	t.Helper()
	r, err := exec.Runner{}.Run(t.Context(), exec.Command{Argv: argv})
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Stdout)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestPull(t *testing.T) {
	b := builder(t, host{})
	var stages []string
	m, err := b.Pull(t.Context(), "debian:bookworm", func(stage, detail string) {
		if detail == "" || detail == "installing packages" {
			stages = append(stages, strings.TrimSpace(stage+" "+detail))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"bootstrap installing packages", "kernel", "root disk", "work seed", "seal"}, stages); d != "" {
		t.Error(d)
	}
	want := image.Manifest{
		Name: "debian:12", Arch: "amd64", Source: "debian bookworm", OS: "Debian", Init: "/sbin/init",
		Kernel:   image.Kernel{Version: "6.1.0", Size: 64, Modules: []string{"failover", "virtio_net"}},
		Root:     image.Disk{FSType: "ext4", Size: 4 * vm.GiB},
		WorkSeed: image.Seed{Disk: image.Disk{FSType: "ext4", Size: 64 * vm.MiB}},
		Services: []image.Service{{Name: "ssh", Port: 22}},
		Packages: []image.Package{{Name: "systemd", Version: "252", Arch: "amd64"}},
	}
	if d := cmp.Diff(want, m, cmpopts.IgnoreFields(image.Manifest{}, "ID", "Created", "PackagesSHA256", "Tools"),
		cmpopts.IgnoreFields(image.Kernel{}, "SHA256"), cmpopts.IgnoreFields(image.Disk{}, "UUID", "Allocated"), cmpopts.IgnoreFields(image.Seed{}, "Fingerprint")); d != "" {
		t.Error(d)
	}
	if !strings.Contains(m.Tools["mke2fs"], "mke2fs 1.") || m.Tools["mmdebstrap"] != "mmdebstrap 1.3.5" {
		t.Errorf("tools are %v", m.Tools)
	}
	if d := cmp.Diff([]string{m.ID}, names(t, b.Dir)); d != "" {
		t.Error(d)
	}
	dir := filepath.Join(b.Dir, m.ID)
	if d := cmp.Diff([]string{"kernel.config", "manifest.json", "modules.cpio", "root.ext4", "vmlinux", "work.ext4"}, names(t, dir)); d != "" {
		t.Error(d)
	}
	listed, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]image.Manifest{m}, listed); d != "" {
		t.Errorf("what is listed differs from what was returned: %s", d)
	}

	root := filepath.Join(dir, image.FileRoot)
	out(t, "e2fsck", "-fn", root)
	if got := out(t, "debugfs", "-R", "cat /etc/hostname", root); got != "localhost\n" {
		t.Errorf("hostname is %q", got)
	}
	if got := out(t, "debugfs", "-R", "ls -p /boot", root); strings.Contains(got, "vmlinuz") {
		t.Errorf("the kernel takes its place twice:\n%s", got)
	}
	if got := out(t, "dumpe2fs", "-h", root); !strings.Contains(got, m.Root.UUID) {
		t.Errorf("its UUID is not %s:\n%s", m.Root.UUID, got)
	}
	if m.Root.Allocated > 128*vm.MiB {
		t.Errorf("an all but empty root takes %s", vm.FormatSize(m.Root.Allocated))
	}
}

// The work seed is grown to a VM's work disk, which may be a thousand times larger.
func TestWorkSeedGrows(t *testing.T) {
	b := builder(t, host{})
	m, err := b.Pull(t.Context(), "debian:12", quiet)
	if err != nil {
		t.Fatal(err)
	}
	seed := filepath.Join(b.Dir, m.ID, image.FileWorkSeed)
	if got := out(t, "debugfs", "-R", "stat /", seed); !strings.Contains(got, "Mode:  0700") {
		t.Errorf("/root is open to others:\n%s", got)
	}
	for _, size := range []int64{2 * vm.GiB, vm.TiB} {
		if err := os.Truncate(seed, size); err != nil {
			t.Fatal(err)
		}
		out(t, "resize2fs", seed)
		// One inode for every 16 KiB, as mke2fs would give a file system of that size.
		if got := field(t, seed, "Inode count"); got != size/(16*vm.KiB) {
			t.Errorf("%s has %d inodes", vm.FormatSize(size), got)
		}
		if got := field(t, seed, "Block count"); got != size/(4*vm.KiB) {
			t.Errorf("%s has %d blocks", vm.FormatSize(size), got)
		}
	}
}

func field(t *testing.T, disk, name string) int64 {
	t.Helper()
	for line := range strings.Lines(out(t, "dumpe2fs", "-h", disk)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", disk, name)
	return 0
}

func TestTheNewestImageHasTheName(t *testing.T) {
	version := "252"
	b := builder(t, host{tree: func() map[string]string {
		tree := debian(t)
		tree["var/lib/dpkg/status"] = strings.Replace(tree["var/lib/dpkg/status"], "252", version, 1)
		return tree
	}})
	pull := func() image.Manifest {
		m, err := b.Pull(t.Context(), "debian:12", quiet)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first, again := pull(), pull()
	if first.ID != again.ID || !first.Created.Equal(again.Created) {
		t.Errorf("a pull that found nothing new replaced %s by %s", first.ID, again.ID)
	}
	version = "253"
	second := pull()
	all, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range all {
		got[m.Name] = m.ID
	}
	if d := cmp.Diff(map[string]string{"debian:12": second.ID, "debian:12@" + first.ID: first.ID}, got); d != "" {
		t.Error(d)
	}
	version = "252"
	if back := pull(); back.ID != first.ID || back.Name != "debian:12" {
		t.Errorf("got %s as %s", back.ID, back.Name)
	}
	if d := cmp.Diff(2, len(names(t, b.Dir))); d != "" {
		t.Error(d)
	}
}

func TestPullsSideBySide(t *testing.T) {
	var n atomic.Int64
	b := builder(t, host{tree: func() map[string]string {
		tree := debian(t)
		tree["var/lib/dpkg/status"] = strings.Replace(tree["var/lib/dpkg/status"], "252", fmt.Sprint(n.Add(1)), 1)
		return tree
	}})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := b.Pull(t.Context(), "debian:12", quiet); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, m := range all {
		if m.Name == "debian:12" {
			named++
		}
	}
	if len(all) != 3 || named != 1 {
		t.Errorf("of %d images %d have the name", len(all), named)
	}
}

func TestAPullThatFailsLeavesNothing(t *testing.T) {
	failing := func(program, said string, err error) host {
		return host{fail: func(argv []string, onLine func(string)) error {
			if argv[0] != program {
				return nil
			}
			onLine(said)
			return err
		}}
	}
	without := func(option string) host {
		return host{tree: func() map[string]string {
			tree := debian(t)
			tree["boot/config-6.1.0"] = strings.Replace(tree["boot/config-6.1.0"], option, "# unset", 1)
			return tree
		}}
	}
	less := func(gone string) host {
		return host{tree: func() map[string]string {
			tree := debian(t)
			delete(tree, gone)
			return tree
		}}
	}
	for name, c := range map[string]struct {
		host host
		code fault.Code
		want string
	}{
		"mmdebstrap is not installed": {
			failing("mmdebstrap", "", fault.New(fault.Requirement, "the program is not installed").WithOp("run", "mmdebstrap")),
			fault.Requirement, `run "mmdebstrap": the program is not installed`,
		},
		"the mirror does not answer": {
			failing("mmdebstrap", "E: cannot connect", errors.New("mmdebstrap: exit status 25")),
			fault.Unavailable, `pull image "debian:12": the bootstrap failed: mmdebstrap: exit status 25`,
		},
		"the disk fills up in the bootstrap": {
			failing("mmdebstrap", "tar: write: No space left on device", errors.New("mmdebstrap: exit status 25")),
			fault.Exhausted, `pull image "debian:12": no space left on device`,
		},
		"the disk fills up in mke2fs": {
			failing("mke2fs", "", errors.New("mke2fs: exit status 1: mke2fs: No space left on device while writing out")),
			fault.Exhausted, `pull image "debian:12": no space left on device`,
		},
		"mke2fs fails": {failing("mke2fs", "", errors.New("mke2fs: exit status 1")), fault.Internal, `pull image "debian:12": mke2fs: exit status 1`},
		"the kernel cannot boot": {
			without("CONFIG_DEVTMPFS=y"), fault.Incompatible, `use kernel "6.1.0": it lacks 1 options that a guest needs`,
		},
		"there is no kernel": {less("boot/vmlinuz-6.1.0"), fault.Invalid, "read kernel: the tree holds 0 kernels in /boot, want one"},
		"there is no init":   {less("usr/sbin/init"), fault.Invalid, `pull image "debian:12": it holds no init`},
	} {
		t.Run(name, func(t *testing.T) {
			b := builder(t, c.host)
			_, err := b.Pull(t.Context(), "debian:12", quiet)
			if fault.CodeOf(err) != c.code || err == nil || err.Error() != c.want {
				t.Errorf("got %v (%s), want %s", err, fault.CodeOf(err), c.want)
			}
			if left := names(t, b.Dir); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestACanceledPullLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	b := builder(t, host{})
	_, err := b.Pull(ctx, "debian:12", func(stage, _ string) {
		if stage == "work seed" {
			cancel(enough)
		}
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	if left := names(t, b.Dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range files {
			if !yield(name) {
				return
			}
		}
	}) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestImport(t *testing.T) {
	b := builder(t, host{})
	kernel, err := b.Pull(t.Context(), "debian:12", quiet)
	if err != nil {
		t.Fatal(err)
	}
	tree := tarball(t, map[string]string{"sbin/init": "init", "etc/os-release": "PRETTY_NAME=Tiny\n"})
	request := func(name string) lifecycle.ImportRequest {
		return lifecycle.ImportRequest{Name: name, Source: "tiny.tar\x1b[2J", KernelFrom: kernel, Tar: bytes.NewReader(tree)}
	}
	one, err := b.Import(t.Context(), request("one"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if one.Name != "one" || one.OS != "Tiny" || one.Init != "/sbin/init" || one.Source != "import tiny.tar[2J" || one.Services != nil {
		t.Errorf("got %+v", one)
	}
	if d := cmp.Diff(kernel.Kernel, one.Kernel); d != "" {
		t.Error(d)
	}
	if got := out(t, "debugfs", "-R", "cat /sbin/init", filepath.Join(b.Dir, one.ID, image.FileRoot)); got != "init" {
		t.Errorf("its init holds %q", got)
	}
	// The kernel stays when the image that it came from goes.
	if err := b.Delete(kernel.ID); err != nil {
		t.Fatal(err)
	}
	if listed, err := b.List(); err != nil || len(listed) != 1 || listed[0].ID != one.ID {
		t.Errorf("listed %v, %v", listed, err)
	}
}

func TestOneArchiveUnderTwoNamesIsTwoImages(t *testing.T) {
	b := builder(t, host{})
	kernel, err := b.Pull(t.Context(), "debian:12", quiet)
	if err != nil {
		t.Fatal(err)
	}
	tree := tarball(t, map[string]string{"sbin/init": "init"})
	seen := map[string]string{}
	for _, name := range []string{"one", "two", "one"} {
		m, err := b.Import(t.Context(), lifecycle.ImportRequest{Name: name, Source: "t.tar", KernelFrom: kernel, Tar: bytes.NewReader(tree)}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if before := seen[name]; before != "" && before != m.ID {
			t.Errorf("%s was %s and is %s", name, before, m.ID)
		}
		seen[name] = m.ID
	}
	if seen["one"] == seen["two"] {
		t.Errorf("both are %s", seen["one"])
	}
	if got := names(t, b.Dir); len(got) != 3 {
		t.Errorf("images are %v", got)
	}
}

func TestAnImportWithoutAnInitLeavesNothing(t *testing.T) {
	b := builder(t, host{})
	kernel, err := b.Pull(t.Context(), "debian:12", quiet)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tar  []byte
		want string
	}{
		"no init":   {tarball(t, map[string]string{"etc/os-release": ""}), "it holds no init"},
		"no tree":   {nil, "the archive is empty"},
		"cut short": {tarball(t, map[string]string{"sbin/init": strings.Repeat("x", 4096)})[:1000], `entry "sbin/init": unexpected EOF`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Import(t.Context(), lifecycle.ImportRequest{Name: "x", Source: "x", KernelFrom: kernel, Tar: bytes.NewReader(c.tar)}, quiet)
			if want := `import image "x": ` + c.want; !fault.Is(err, fault.Invalid) || err.Error() != want {
				t.Errorf("got %v (%s), want %s", err, fault.CodeOf(err), want)
			}
			if d := cmp.Diff([]string{kernel.ID}, names(t, b.Dir)); d != "" {
				t.Error(d)
			}
		})
	}
}
