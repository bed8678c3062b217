package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestListIsCheap holds `banger vm list` to its budget: people and prompts run it all the time.
func TestListIsCheap(t *testing.T) {
	const budget, runs = 40 * time.Millisecond, 20
	socket := filepath.Join(t.TempDir(), "d.sock")
	stop, err := serve(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	costs := make([]time.Duration, runs)
	for i := range costs {
		cmd := exec.CommandContext(t.Context(), "banger", "vm", "list")
		cmd.Env = append(os.Environ(), "BANGER_SOCKET="+socket, "TEST_OLD=1", raceExit)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		costs[i] = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	slices.Sort(costs)
	if median := costs[runs/2]; median > budget {
		t.Errorf("the median of %d runs takes %s of CPU time, more than %s", runs, median, budget)
	}
}

// TestNothingHeavyIsLinkedIn: what a package does when it is initialised is paid by every command.
func TestNothingHeavyIsLinkedIn(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "banger/cmd/banger")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := []string{
		"banger/internal/daemon", "banger/internal/server", "banger/internal/store", "banger/internal/host", "banger/internal/lifecycle",
		"github.com/danielgtaylor/huma", "modernc.org/sqlite", "charm.land/", "github.com/vishvananda/netlink", "github.com/prometheus/",
	}
	for path := range strings.FieldsSeq(string(out)) {
		for _, prefix := range heavy {
			if strings.HasPrefix(path, prefix) {
				t.Errorf("banger links %s", path)
			}
		}
	}
}
