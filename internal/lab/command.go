package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"banger/internal/fault"
)

// command prepares a program with an environment of its own.
func command(ctx context.Context, argv, env []string) *exec.Cmd {
	path, err := lookPath(argv[0])
	if err != nil {
		path = argv[0] // running it gives the error
	}
	c := exec.CommandContext(ctx, path, argv[1:]...)
	c.Env = env
	return c
}

// lookPath finds a program on the lab host's PATH: PID 1 has none of its own.
func lookPath(program string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	for _, dir := range filepath.SplitList(guestPath) {
		path := filepath.Join(dir, program)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fault.New(fault.NotFound, "the lab host has no such program").WithOp("run", program)
}
