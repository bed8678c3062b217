package lifecycle_test

import (
	"slices"
	"testing"

	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// TestAnImageWithoutAWorkSeed holds that a create does without and says so, and that the image has one again behind it.
func TestAnImageWithoutAWorkSeed(t *testing.T) {
	const warning = "image debian:12: its work seed is missing; a work disk was generated instead of cloned"
	for name, c := range map[string]struct {
		heals bool
		first func(*world) string // makes a work disk, and returns the kind of the operation
	}{
		"create": {true, func(w *world) string { w.must(w.create("dev")); return lifecycle.KindCreate }},
		"warm": {true, func(w *world) string {
			w.must(w.end(w.m.WarmImage(t.Context(), alice, lifecycle.WarmRequest{})))
			return lifecycle.KindWarm
		}},
		"create, and healing fails": {false, func(w *world) string {
			w.host.FailOn(hosttest.Effect{Label: "heal work seed", Nth: 1})
			w.must(w.create("dev"))
			return lifecycle.KindCreate
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.host.LoseSeed(debian().ID)
			kind := c.first(w)
			w.must(w.m.Idle(t.Context()))
			if o := w.ops(kind)[0]; !slices.Equal(o.Warnings, []string{warning}) {
				t.Errorf("it warned %q", o.Warnings)
			}
			w.host.FailAt(0)
			w.must(w.end(w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "next", Cold: true})))
			if w.did("generate work.ext4") == c.heals || w.did("clone work.ext4") != c.heals {
				t.Errorf("the next create went %v", w.host.Effects())
			}
			v := w.find("next")
			if seen := w.host.Seen(v.ID); seen.Work != 8*vm.GiB {
				t.Errorf("its work disk has %s", vm.FormatSize(seen.Work))
			}
		})
	}
}

// TestAWarmCreateNeedsNoSeed holds that what goes on from a golden snapshot is not concerned with it.
func TestAWarmCreateNeedsNoSeed(t *testing.T) {
	w := warmWorld(t)
	w.host.LoseSeed(debian().ID)
	w.must(w.create("dev"))
	if o := w.ops(lifecycle.KindCreate)[0]; len(o.Warnings) > 0 || w.did("generate work.ext4") || w.find("dev").Golden == "" {
		t.Errorf("it went %v, and warned %q", w.host.Effects(), o.Warnings)
	}
}
