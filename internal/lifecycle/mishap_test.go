package lifecycle_test

import (
	"testing"

	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/vm"
)

// TestWhatGoesDownNeedsNoDescription holds that a VM whose directory was removed by hand, or whose
// disk is full, can still be stopped, killed and deleted.
func TestWhatGoesDownNeedsNoDescription(t *testing.T) {
	for name, down := range map[string]func(*world) error{
		"stop": func(w *world) error { return w.end(w.m.Stop(w.t.Context(), alice, "dev", 0)) },
		"kill": func(w *world) error { return w.end(w.m.Kill(w.t.Context(), alice, "dev")) },
		"end": func(w *world) error {
			w.host.Poweroff(w.find("dev").ID)
			w.await("dev", vm.Stopped)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.create("dev"))
			w.host.LoseDirectory(w.find("dev").ID)
			w.must(down(w))
			w.holds()
			w.must(w.end(w.m.Delete(t.Context(), alice, "dev", false)))
			if all, err := w.m.List(t.Context(), root); err != nil || len(all) > 0 {
				t.Errorf("left: %v, %v", all, err)
			}
		})
	}
}

// vanishing is a catalog whose image is gone after its first listing.
type vanishing struct {
	catalog
	listed *int
}

func (v vanishing) List() ([]image.Manifest, error) {
	if *v.listed++; *v.listed > 1 {
		return nil, nil
	}
	return v.catalog.List()
}

// TestAnImageThatVanishesDuringACreate holds that intent is committed whole, with every record, or
// not at all.
func TestAnImageThatVanishesDuringACreate(t *testing.T) {
	w := newWorld(t)
	w.m = w.manager(vanishing{catalog{list: []image.Manifest{debian()}}, new(int)})
	o, err := w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev"})
	if err == nil {
		err = w.end(o, nil)
	}
	if code(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
	w.holds()
}
