package guest_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
)

// TestTheGuestIsChanged asks a real agent, whose refusal arrives cleaned.
func TestTheGuestIsChanged(t *testing.T) {
	h := open(t, config)
	g := boot(t, h)
	h.expect(t, bootEvents(0)...)
	if err := h.Grow(t.Context(), "/dev/vdb", 1<<30); err != nil {
		t.Error(err)
	}
	if err := h.Rename(t.Context(), "other"); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"grow /dev/vdb to 1073741824", "rename to other"}, g.Changes()); d != "" {
		t.Error(d)
	}
	err := h.Rename(t.Context(), "")
	if want := `the guest answered: set the hostname:\x1b[2J no name`; !fault.Is(err, fault.Unavailable) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
