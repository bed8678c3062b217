package vm_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"banger/internal/fault"
	"banger/internal/vm"
)

func TestTagOf(t *testing.T) {
	id := vm.NewID()
	if tag, ok := vm.TagOf(id.TAP("ab12")); tag != "ab12" || !ok {
		t.Errorf("got %q, %v", tag, ok)
	}
	for _, name := range []string{"", "bt", "bt-", "btab12", "btab12-", "btab12-0123456", "btab12-0123456g", "xxab12-01234567", "btab1-01234567", "eth0"} {
		if _, ok := vm.TagOf(name); ok {
			t.Errorf("%q is no VM's TAP", name)
		}
	}
}

func TestIDs(t *testing.T) {
	seen := map[vm.ID]bool{}
	for range 1000 {
		id := vm.NewID()
		if !id.Valid() || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
		if m := vm.NewMachineID(); len(m) != 32 || strings.Trim(m, "0123456789abcdef") != "" {
			t.Fatalf("machine id %q", m)
		}
	}
	for _, bad := range []vm.ID{"", "0123456789a", "0123456789abc", "0123456789AB", "0123456789a/", "0123456789ab\n"} {
		if bad.Valid() {
			t.Errorf("%q is valid", bad)
		}
	}
	for tag, want := range map[vm.Tag]bool{"1f2e": true, "": false, "1F2E": false, "1f2": false, "1f2e\n": false, "../e": false} {
		if tag.Valid() != want {
			t.Errorf("%q: %v", tag, !want)
		}
	}
}

func TestSpareTAPsAreKnownByTheirNames(t *testing.T) {
	const tag vm.Tag = "1f2e"
	for _, n := range []int{0, 7, vm.MaxSpares - 1} {
		name := tag.Spare(n)
		if got, ok := tag.MarksSpare(name); got != n || !ok || len(name) > 15 || tag.Marks(name) {
			t.Errorf("%q: %d, %v", name, got, ok)
		}
	}
	for _, other := range []string{"", "tap-pool-1f2e", "tap-pool-1f2e7", "tap-pool-1f2e007", "tap-pool-1f2e+7", "tap-pool-1f2e-7", "tap-pool-abcd00", vm.ID("0123456789ab").TAP(tag)} {
		if n, ok := tag.MarksSpare(other); ok {
			t.Errorf("%q is taken for spare TAP %d", other, n)
		}
	}
}

func TestDeviceNamesFitTheKernel(t *testing.T) {
	const tag vm.Tag = "1f2e"
	root := vm.ID("0123456789ab").RootDevice(tag)
	if id, ours := tag.RootDeviceOf(root); root != "banger-1f2e-0123456789ab" || !ours || id != "0123456789ab" {
		t.Errorf("root device %q of %q, %v", root, id, ours)
	}
	for _, name := range []string{"banger-1f2f-0123456789ab", "banger-1f2e-0123456789a", "banger-1f2e", "vg-root", ""} {
		if id, ours := tag.RootDeviceOf(name); ours {
			t.Errorf("%q is taken for that of %s", name, id)
		}
	}
	if tap := vm.ID("0123456789ab").TAP(tag); tap != "bt1f2e-01234567" || len(tap) > 15 {
		t.Errorf("TAP %q", tap)
	}
	for n, want := range map[int]string{0: "banger-1f2e", 1: "banger-1f2e-1", 63: "banger-1f2e-63", 999: "banger-1f2e-999"} {
		bridge := tag.Bridge(n)
		if got, ok := tag.MarksBridge(bridge); bridge != want || len(bridge) > 15 || !ok || got != n {
			t.Errorf("bridge %d is %q, and that the %d", n, bridge, got)
		}
	}
	for _, name := range []string{"", "banger-", "banger-1f2", "banger-1f2e-", "banger-1f2e-0", "banger-1f2e-01", "banger-1f2e--1", "banger-1f2e-+1", "banger-1f2e1", "banger-abcd", "banger-1F2E", "br-1f2e"} {
		if n, ok := tag.MarksBridge(name); ok {
			t.Errorf("%q is taken for the %d", name, n)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"dev":                   "",
		"a":                     "",
		"my-project-2":          "",
		"cafe":                  "", // hexadecimal letters only: no id has it as a prefix that a person would mean
		"x" + digits(62):        "",
		"":                      "the name is empty",
		"Dev":                   "it is not a valid host name",
		"2nd":                   "it is not a valid host name",
		"-dev":                  "it is not a valid host name",
		"dev-":                  "it is not a valid host name",
		"dev\n":                 "it is not a valid host name",
		"a.b":                   "it is not a valid host name",
		"../etc":                "it is not a valid host name",
		"dév":                   "it is not a valid host name",
		"x" + digits(63):        "it is not a valid host name",
		"localhost":             "it is the host's own name for itself",
		"c0ffee":                "it looks like an id",
		"a1b2c3d4e5f6":          "it looks like an id",
		"a" + digits(12) + "bc": "", // longer than an id
	} {
		err := vm.CheckName(name)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", name, err)
			}
			continue
		}
		text := "name VM"
		if name != "" {
			text += fmt.Sprintf(" %q", name)
		}
		if !fault.Is(err, fault.Invalid) || err.Error() != text+": "+want || fault.From(err).Hint == "" {
			t.Errorf("%q: got %v, want %s", name, err, want)
		}
	}
	for range 1000 {
		if name := vm.RandomName(); vm.CheckName(name) != nil {
			t.Fatalf("the random name %q is none", name)
		}
	}
}

func digits(n int) string { return strings.Repeat("1", n) }

func TestCheckLabels(t *testing.T) {
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprintf("k%d", i)] = ""
	}
	for _, c := range []struct {
		labels map[string]string
		want   string
	}{
		{nil, ""},
		{map[string]string{"project": "web site", "example.org/x_y": "ü", "1": strings.Repeat("x", 256)}, ""},
		{many, "there are 65 labels, at most 64 are allowed"},
		{map[string]string{"Project": ""}, "the key is not valid"},
		{map[string]string{"": ""}, "the key is not valid"},
		{map[string]string{"a=b": ""}, "the key is not valid"},
		{map[string]string{strings.Repeat("k", 65): ""}, "the key is not valid"},
		{map[string]string{"k": strings.Repeat("x", 257)}, "the value is too long or has control characters"},
		{map[string]string{"k": "\x1b[2J"}, "the value is too long or has control characters"},
	} {
		err := vm.CheckLabels(c.labels)
		if c.want == "" && err != nil || c.want != "" && (!fault.Is(err, fault.Invalid) || fault.From(err).Msg != c.want) {
			t.Errorf("%.60v: got %v, want %q", c.labels, err, c.want)
		}
	}
}

func TestSelect(t *testing.T) {
	all := []vm.VM{
		{ID: "1f0c6a2b9d3e", Name: "dev"},
		{ID: "1f01cd23ef45", Name: "old"},
		{ID: "77ab01cd23ef", Name: "cafe"},
		{ID: "cafe01cd23ef", Name: "other"},
	}
	for selector, want := range map[string]string{
		"dev":           "dev",
		"1f0c6a2b9d3e":  "dev",
		"1f0c":          "dev",
		"7":             "cafe",
		"cafe":          "cafe", // a name goes before the prefix of an id
		"cafe0":         "other",
		"":              "no VM was named",
		"1f0":           `find VM "1f0": it matches 2 VMs: dev (1f0c6a2b9d3e), old (1f01cd23ef45)`,
		"de":            `find VM "de": no VM has this name or id`,
		"1f0c6a2b9d3e0": `find VM "1f0c6a2b9d3e0": no VM has this name or id`,
	} {
		v, err := vm.Select(all, selector)
		got := v.Name
		if err != nil {
			got = err.Error()
			if fault.From(err).Hint == "" {
				t.Errorf("%q: no hint", selector)
			}
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", selector, got, want)
		}
	}
}

func TestSelectFindsEveryIDByItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]vm.VM, rapid.IntRange(1, 30).Draw(t, "VMs"))
		for i := range all {
			all[i] = vm.VM{ID: vm.NewID(), Name: vm.RandomName()}
		}
		want := rapid.SampledFrom(all).Draw(t, "VM")
		if got, err := vm.Select(all, string(want.ID)); err != nil || got.ID != want.ID {
			t.Fatalf("%s: %v, %v", want.ID, got.ID, err)
		}
		// A prefix finds it or is said to be ambiguous, never another one.
		prefix := string(want.ID[:rapid.IntRange(1, 12).Draw(t, "digits")])
		if got, err := vm.Select(all, prefix); err == nil && got.ID != want.ID || err != nil && !fault.Is(err, fault.Ambiguous) {
			t.Fatalf("%s: %v, %v", prefix, got.ID, err)
		}
	})
}

func TestLayoutStaysInsideItsStateDirectory(t *testing.T) {
	l := vm.Layout{State: "/var/lib/banger"}
	const id vm.ID = "0123456789ab"
	for got, want := range map[string]string{
		l.Image("fedcba987654"): "images/fedcba987654",
		l.Boot():                "boot",
		l.Failed():              "failed",
		l.DaemonLog():           "bangerd.log",
		l.VM(id):                "vms/0123456789ab",
		l.Jail(id):              "vms/0123456789ab/jail",
		l.ConsoleLog(id):        "vms/0123456789ab/logs/console.log",
		l.FirecrackerLog(id):    "vms/0123456789ab/logs/firecracker.log",
	} {
		if got != filepath.Join(l.State, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCallerSees(t *testing.T) {
	for _, c := range []struct {
		uid, owner int
		want       bool
	}{{0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		if got := (vm.Caller{UID: c.uid}).Sees(c.owner); got != c.want {
			t.Errorf("uid %d, owner %d: %v", c.uid, c.owner, got)
		}
	}
}
