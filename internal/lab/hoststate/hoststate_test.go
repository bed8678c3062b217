package hoststate_test

import (
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"banger/internal/lab/hoststate"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func host() fstest.MapFS {
	return fstest.MapFS{
		"proc/1/cmdline":                     file("/init\x00"),
		"proc/2/cmdline":                     file(""), // kthreadd
		"proc/70/cmdline":                    file("/src/bin/bangerd\x00--debug\x00"),
		"proc/71/cmdline":                    file("firecracker\x00--id\x00a\x00"),
		"proc/72/cmdline":                    file("firecracker\x00--id\x00a\x00"),
		"proc/self/mountinfo":                file("22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n23 22 0:5 / /proc rw - proc proc rw\n"),
		"proc/net/unix":                      file("Num RefCount Protocol Flags Type St Inode Path\n0: 2 0 00010000 0001 01 9 /w/state/v.sock\n0: 3 0 00000000 0001 03 8 /w/state/v.sock\n0: 2 0 00010000 0001 01 7 /run/other\n"),
		"sys/class/net/lo/mtu":               file("65536"),
		"sys/class/net/tap1/mtu":             file("1500"),
		"sys/class/net/tap1/master":          {Mode: fs.ModeSymlink, Data: []byte("../br0")},
		"sys/block/loop0/loop/backing_file":  file("/w/root.ext4\n"),
		"sys/block/loop1/size":               file("0"),
		"sys/block/dm-0/dm/name":             file("bgr-a\n"),
		"sys/fs/cgroup/bgr/a/cgroup.procs":   file("71"),
		"w/state/vms/a/vm.json":              file("{}"),
		"w/state/banger.db":                  file(""),
		"elsewhere/vms/is-not-looked-at/log": file(""),
	}
}

func TestRead(t *testing.T) {
	got, err := hoststate.Read(host(), []byte("table inet bgr {\n\tchain in {\n\t}\n}\n"), hoststate.Options{Below: "/w/state", Ignore: []string{"bangerd"}})
	if err != nil {
		t.Fatal(err)
	}
	want := hoststate.State{
		"cgroup /sys/fs/cgroup/bgr",
		"cgroup /sys/fs/cgroup/bgr/a",
		"dir /w/state/vms",
		"dir /w/state/vms/a",
		"dm bgr-a",
		"link lo",
		"link tap1 master br0",
		"loop /w/root.ext4",
		"mount /",
		"mount /proc",
		"nft chain in {",
		"nft table inet bgr {",
		"process /init",
		"process firecracker --id a",
		"process firecracker --id a",
		"socket /w/state/v.sock",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReadNothingBelow(t *testing.T) {
	h := host()
	got, err := hoststate.Read(h, nil, hoststate.Options{Below: "/not/made/yet"})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range got {
		if line == "dir /w/state/vms" {
			t.Errorf("%q is not below the directory asked for", line)
		}
	}
}

// TestTAPsThatAreKeptReady are no difference while a VM's TAP is on their bridge, and a leak when none is.
func TestTAPsThatAreKeptReady(t *testing.T) {
	h := host()
	master := &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../br0")}
	h["sys/class/net/tap-pool-ab1200/master"] = master
	h["sys/class/net/tap-pool-ab1201/mtu"] = file("1500") // off its bridge
	for _, want := range [][]string{
		{"+ link tap-pool-ab1201"},
		{"+ link tap-pool-ab1200 master br0", "+ link tap-pool-ab1201", "- link tap1 master br0"},
	} {
		before, err := hoststate.Read(host(), nil, hoststate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		after, err := hoststate.Read(h, nil, hoststate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, hoststate.Diff(before, after)); d != "" {
			t.Error(d)
		}
		delete(h, "sys/class/net/tap1/mtu")
		delete(h, "sys/class/net/tap1/master")
	}
}

// TestReadThisHost holds that the real /proc and /sys have the shape that Read expects.
func TestReadThisHost(t *testing.T) {
	if _, err := hoststate.Read(os.DirFS("/"), nil, hoststate.Options{Below: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
}

func TestDiff(t *testing.T) {
	before := hoststate.State{"link lo", "process a", "process b"}
	for name, c := range map[string]struct {
		after hoststate.State
		want  []string
	}{
		"same":     {hoststate.State{"process b", "link lo", "process a"}, nil},
		"came":     {hoststate.State{"link lo", "link tap1", "process a", "process b"}, []string{"+ link tap1"}},
		"went":     {hoststate.State{"link lo", "process b"}, []string{"- process a"}},
		"a second": {hoststate.State{"link lo", "process a", "process b", "process b"}, []string{"+ process b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, hoststate.Diff(before, c.after)); d != "" {
				t.Error(d)
			}
		})
	}
}
