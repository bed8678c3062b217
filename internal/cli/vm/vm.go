// Package vm holds the commands `banger vm …`.
package vm

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/fault"
	nouns "banger/internal/vm"
)

// New returns `banger vm`.
func New(a *app.App) *cobra.Command {
	return app.Group("vm", "Make and use virtual machines",
		newCreate(a), newList(a), newShow(a),
		newStart(a), newStop(a), newKill(a), newSet(a), newFork(a), newCheckpoint(a), newDelete(a), newTrash(a),
		newPort(a), newForward(a),
		newSSH(a), newStats(a), newLogs(a), newNet(a), newPing(a))
}

func stateStyle(p term.Palette, s nouns.State) func(string) string {
	switch s {
	case nouns.Running:
		return p.Green
	case nouns.Crashed:
		return p.Red
	case nouns.Creating, nouns.Starting, nouns.Stopping, nouns.Deleting, nouns.Restoring:
		return p.Cyan
	case nouns.Paused:
		return p.Yellow
	case nouns.Stopped:
		return p.Dim
	default:
		return nil
	}
}

// size is a flag's value in bytes.
type size int64

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return nouns.FormatSize(int64(*s))
}

func (s *size) Type() string { return "SIZE" }

func (s *size) Set(text string) error {
	n, err := nouns.ParseSize(text)
	*s = size(n)
	return err
}

// count is a flag's value that is given as at least 1; zero stands for one that was not given.
type count int

func (c *count) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.Itoa(int(*c))
}

func (c *count) Type() string { return "NUMBER" }

func (c *count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return fault.New(fault.Invalid, "it is no number from 1 up").WithOp("read number", text).WithHint("write a number such as 2")
	}
	*c = count(n)
	return nil
}

// run adapts a command's work to cobra.
func run(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return work(cmd.Context(), args) }
}
