package setup

import (
	"bytes"
	"context"
	"os/exec"

	"banger/internal/fault"
)

// Run runs one of the host's own administration programs and waits for it.
func Run(ctx context.Context, argv []string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err == nil {
		return nil
	}
	return fault.New(fault.Requirement, "%w", err).WithOp("run", argv[0]).WithDetail(string(bytes.TrimSpace(out))).
		WithHint("see why, then run setup again: what was done is left alone")
}
