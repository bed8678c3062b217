package firecracker

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strconv"

	"banger/internal/fault"
	"banger/internal/host/exec"
)

// Version is a release of Firecracker.
type Version struct{ Major, Minor, Patch int }

// Oldest is the oldest release that banger runs on: before it a slow disk starves a guest's other
// devices (#5277), and a restored guest cannot be given another TAP (#4731).
func Oldest() Version { return Version{1, 12, 1} }

// String renders the version as Firecracker's tags do, without the "v".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Compare is negative when v is older than w, 0 when they are the same, positive when it is newer.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch))
}

var versionPattern = regexp.MustCompile(`^Firecracker v(\d{1,6})\.(\d{1,6})\.(\d{1,6})(-[0-9A-Za-z.-]+)?\s`)

// parseVersion reads what `firecracker --version` prints. A development build counts as the release
// that it leads to.
func parseVersion(output string) (Version, bool) {
	m := versionPattern.FindStringSubmatch(output)
	if m == nil {
		return Version{}, false
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // the pattern lets short numbers through only
	}
	return Version{n[0], n[1], n[2]}, true
}

// Probe asks a Firecracker binary for its version. It fails with fault.Requirement when there is
// none, and with fault.Incompatible when it is older than Oldest or not Firecracker at all.
func Probe(ctx context.Context, binary string) (Version, error) {
	const get = "install Firecracker %s or newer, and put it on PATH or name it as firecracker_bin in the configuration"
	if _, err := exec.LookPath(binary); err != nil {
		return Version{}, fault.New(fault.Requirement, "Firecracker is not installed: %w", err).
			WithOp("find hypervisor", binary).WithHint(get, Oldest())
	}
	result, err := exec.Runner{}.Run(ctx, exec.Command{Argv: []string{binary, "--version"}})
	if ctx.Err() != nil {
		return Version{}, fault.New(fault.Timeout, "it did not tell its version in time: %w", err).
			WithOp("find hypervisor", binary).WithHint("the host is busy: try again")
	}
	if err != nil {
		return Version{}, fault.New(fault.Incompatible, "it does not tell its version: %w", err).
			WithOp("find hypervisor", binary).WithHint(get, Oldest())
	}
	v, ok := parseVersion(string(result.Stdout))
	if !ok {
		return Version{}, fault.New(fault.Incompatible, "it is not Firecracker: `--version` says %.60q", result.Stdout).
			WithOp("find hypervisor", binary).WithHint(get, Oldest())
	}
	if v.Compare(Oldest()) < 0 {
		return v, fault.New(fault.Incompatible, "Firecracker %s is too old", v).
			WithOp("find hypervisor", binary).WithHint(get, Oldest())
	}
	return v, nil
}
