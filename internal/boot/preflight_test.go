package boot_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/boot"
	"banger/internal/fault"
)

// cloud is what a distribution's cloud kernel says of the options that matter, devices as modules.
const cloud = `#
# Automatically generated file; DO NOT EDIT.
#
CONFIG_BLK_DEV_INITRD=y
CONFIG_BINFMT_ELF=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_ACPI=y
# CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is not set
CONFIG_VIRTIO_MMIO=m
CONFIG_VIRTIO_BLK=m
CONFIG_EXT4_FS=y
CONFIG_VIRTIO_NET=m
CONFIG_VIRTIO_VSOCKETS=m
CONFIG_HW_RANDOM_VIRTIO=m
CONFIG_VIRTIO_BALLOON=m
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_NET=y
CONFIG_INET=y
CONFIG_UNIX=m
CONFIG_CGROUPS=y
CONFIG_EPOLL=y
CONFIG_FUTEX=y
CONFIG_SIGNALFD=y
CONFIG_TIMERFD=y
CONFIG_INOTIFY_USER=y
CONFIG_FHANDLE=y
CONFIG_BINFMT_SCRIPT=m
CONFIG_LOCALVERSION=""
`

func options(missing []boot.Missing) []string {
	var out []string
	for _, m := range missing {
		if m.Breaks == "" {
			out = append(out, "unexplained")
		}
		out = append(out, m.Option)
	}
	return out
}

func TestPreflight(t *testing.T) {
	all := func(string) bool { return true }
	none := func(string) bool { return false }
	for name, c := range map[string]struct {
		config string
		has    func(string) bool
		want   []string
	}{
		"a cloud kernel": {cloud, all, nil},
		"without its modules": {cloud, none, []string{
			"CONFIG_VIRTIO_MMIO", "CONFIG_VIRTIO_BLK", "CONFIG_VIRTIO_NET", "CONFIG_VIRTIO_VSOCKETS", "CONFIG_HW_RANDOM_VIRTIO", "CONFIG_VIRTIO_BALLOON",
		}},
		"turned off": {
			strings.Replace(cloud, "CONFIG_EXT4_FS=y", "# CONFIG_EXT4_FS is not set", 1), all,
			[]string{"CONFIG_EXT4_FS"},
		},
		"a module comes too late": {strings.Replace(cloud, "CONFIG_DEVTMPFS=y", "CONFIG_DEVTMPFS=m", 1), all, []string{"CONFIG_DEVTMPFS"}},
		"no way to find devices":  {strings.Replace(cloud, "CONFIG_ACPI=y", "", 1), all, []string{"CONFIG_ACPI or CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES"}},
		"the other way": {
			strings.Replace(strings.Replace(cloud, "CONFIG_ACPI=y", "", 1), "# CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is not set", "CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y", 1),
			all, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := boot.Preflight(strings.NewReader(c.config), c.has)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, options(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPreflightIsOneFaultThatNamesEverything(t *testing.T) {
	err := boot.CheckPreflight("6.1.0", strings.NewReader("CONFIG_EPOLL=y\n"), func(string) bool { return true })
	f := fault.From(err)
	if f == nil || f.Code != fault.Incompatible || f.Subject != "6.1.0" || f.Hint == "" {
		t.Fatalf("got %+v", f)
	}
	for _, want := range []string{"CONFIG_BLK_DEV_INITRD", "CONFIG_VIRTIO_BLK", "CONFIG_VIRTIO_VSOCKETS", "CONFIG_DEVTMPFS"} {
		if !strings.Contains(f.Detail, want) {
			t.Errorf("it does not name %s:\n%s", want, f.Detail)
		}
	}
	if strings.Contains(f.Detail, "CONFIG_EPOLL") {
		t.Errorf("it names what is there:\n%s", f.Detail)
	}
	if err := boot.CheckPreflight("6.1.0", strings.NewReader(cloud), func(string) bool { return true }); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestPreflightOfSomethingElse(t *testing.T) {
	for _, text := range []string{"", "hello\n", "option=y\n"} {
		if err := boot.CheckPreflight("6.1.0", strings.NewReader(text), nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
