package disk_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/feature/disk"
	"banger/internal/vm"
)

// host notes what it is asked, and fails one of it.
type host struct {
	fails string
	asked []string
}

func (h *host) ask(what string) error {
	h.asked = append(h.asked, what)
	if what == h.fails {
		return fault.New(fault.Unavailable, "no %s", what)
	}
	return nil
}

func (h *host) Clone(context.Context, string, string, int64) (string, error) { return "copy", nil }
func (h *host) Copy(context.Context, string, string, int64) (string, error)  { return "copy", nil }
func (h *host) Exists(string) (bool, error)                                  { return true, nil }
func (h *host) Grow(string, int64) error                                     { return h.ask("file") }

func (h *host) Redrive(_ context.Context, _ vm.ID, d vm.Drive) error { return h.ask("drive " + d.ID) }

func (h *host) Rename(context.Context, string) error { return errors.New("no") }
func (h *host) guest() feature.Guest                 { return guest{h} }

type guest struct{ *host }

func (g guest) Grow(_ context.Context, device string, _ int64) error { return g.ask(device) }

// TestGrowth holds that only the file can fail a growth: what comes after it the next start makes good for.
func TestGrowth(t *testing.T) {
	const silent = "there is no guest to ask now"
	stopped, running := vm.VM{}, vm.VM{Process: &vm.Process{PID: 42}}
	for name, c := range map[string]struct {
		vm     vm.VM
		deaf   bool // no guest can be asked
		fails  string
		asked  []string
		later  string
		failed bool
	}{
		"stopped":                {vm: stopped, asked: []string{"file"}},
		"stopped, no room":       {vm: stopped, fails: "file", asked: []string{"file"}, failed: true},
		"running":                {vm: running, asked: []string{"file", "drive work", "/dev/vdb"}},
		"running, no room":       {vm: running, fails: "file", asked: []string{"file"}, failed: true},
		"running, drive refused": {vm: running, fails: "drive work", asked: []string{"file", "drive work"}, later: "no drive work"},
		"running, old agent":     {vm: running, fails: "/dev/vdb", asked: []string{"file", "drive work", "/dev/vdb"}, later: "no /dev/vdb"},
		"paused":                 {vm: running, deaf: true, asked: []string{"file"}, later: silent},
	} {
		t.Run(name, func(t *testing.T) {
			h := &host{fails: c.fails}
			s := disk.Work(vm.Layout{State: "/state"}, h, h, nil).Settings()[0]
			is := c.vm
			if err := s.Set(&is, "16G"); err != nil || s.Get(is) != "16 GiB" {
				t.Fatalf("%v: %s", err, s.Get(is))
			}
			change := feature.Change{Was: c.vm, Is: is, Guest: h.guest()}
			if c.deaf {
				change.Guest = nil
			}
			later, err := s.Apply(t.Context(), change, func(string) {})
			if later != c.later || (err != nil) != c.failed {
				t.Errorf("later %q, %v", later, err)
			}
			if d := cmp.Diff(c.asked, h.asked); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestADiskNeverShrinks(t *testing.T) {
	h := &host{}
	for _, f := range []*disk.Feature{disk.Root(vm.Layout{}, "ab12", disk.Choice{}, h, h, nil).Feature, disk.Work(vm.Layout{}, h, h, nil)} {
		s := f.Settings()[0]
		v := vm.VM{Spec: vm.Spec{RootDisk: 8 * vm.GiB, WorkDisk: 8 * vm.GiB}}
		for value, want := range map[string]string{
			"8191M": "is less than the 8 GiB that it has, and a disk never shrinks",
			"much":  `read size "much"`,
		} {
			if err := s.Set(&v, value); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || fault.From(err).Hint == "" {
				t.Errorf("%s to %s: %v", s.Key, value, err)
			}
		}
		if v.Spec != (vm.Spec{RootDisk: 8 * vm.GiB, WorkDisk: 8 * vm.GiB}) {
			t.Errorf("%s: %+v", s.Key, v.Spec)
		}
	}
}
