package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/cli"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
)

// TestEveryCommandIsDocumented holds docs/cli to the commands that there are, with their flags.
func TestEveryCommandIsDocumented(t *testing.T) {
	pages, err := filepath.Glob("../../docs/cli/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	var all strings.Builder
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	root := cli.New(&app.App{IO: &term.IO{}})
	for _, cmd := range commands(root) {
		if !strings.Contains(all.String(), cmd.CommandPath()) {
			t.Errorf("docs/cli does not mention %q", cmd.CommandPath())
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(all.String(), "--"+f.Name) && f.Name != "help" {
				t.Errorf("docs/cli does not mention --%s of %q", f.Name, cmd.CommandPath())
			}
			if f.Usage == "" {
				t.Errorf("--%s of %q has no help", f.Name, cmd.CommandPath())
			}
		})
		if cmd.Short == "" {
			t.Errorf("%q has no help", cmd.CommandPath())
		}
	}
}

func commands(cmd *cobra.Command) []*cobra.Command {
	var leaves []*cobra.Command
	for _, c := range cmd.Commands() {
		switch {
		case c.Hidden || !c.Runnable():
		case c.HasSubCommands():
			leaves = append(leaves, commands(c)...)
		default:
			leaves = append(leaves, c)
		}
	}
	return leaves
}
