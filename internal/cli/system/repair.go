package system

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/op"
)

func newRepair(a *app.App) *cobra.Command {
	dryRun := false
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Compare what the daemon knows with what the host has, and mend it",
		Long: `Compare the database with the hypervisors, devices and directories of this host, and mend what differs. The
daemon does so by itself, when it starts and every minute: this does it now and says what it finds.

What is not this banger's is left alone, and no VM's directory is ever removed. One that the daemon does not know
can be taken back with "banger repair adopt".`,
		Example: `  banger repair --dry-run
  banger repair
  banger repair adopt 1f0c6a2b9d3e --name dev-old`,
		Args: app.Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			look := c.Repair
			if dryRun {
				look = c.Findings
			}
			all, err := look(cmd.Context())
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(all)
			}
			return tellFindings(a, all)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	cmd.AddCommand(newAdopt(a))
	return cmd
}

// tellFindings prints a paragraph for each, and fails where one could not be mended.
func tellFindings(a *app.App, all []api.Finding) error {
	p := a.IO.OutPalette()
	if len(all) == 0 {
		a.Hint("nothing to repair")
	}
	var failed error
	for _, f := range all {
		fmt.Fprintf(a.IO.Out, "%s: %s\n", p.Bold(term.Escape(f.Subject)), term.Escape(f.Why))
		switch {
		case f.Error != nil:
			fmt.Fprintf(a.IO.Out, "  %s\n", p.Red("could not be mended: "+term.Escape(f.Error.Error())))
			failed = f.Error
		case f.Done:
			fmt.Fprintf(a.IO.Out, "  done: %s\n", term.Escape(f.Repair))
		case f.Repair != "":
			fmt.Fprintf(a.IO.Out, "  would %s\n", term.Escape(f.Repair))
		default:
			fmt.Fprintf(a.IO.Out, "  %s\n", p.Yellow("for you to decide: "+term.Escape(f.Hint)))
		}
	}
	return failed
}

func newAdopt(a *app.App) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "adopt ID|DIRECTORY", Short: "Take back a VM whose directory the daemon does not know",
		Long: `Take back a VM of which there is a directory among the daemon's that its database does not know, such as one that
was made after the backup that the database comes from. It is described by its vm.json. Its disks are as they were; one
that runs goes on running.`,
		Example: `  banger repair --dry-run
  banger repair adopt 1f0c6a2b9d3e
  banger repair adopt /var/lib/banger/vms/1f0c6a2b9d3e --name dev-old`,
		Args: app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			begun, err := c.AdoptVM(cmd.Context(), api.AdoptVM{VM: filepath.Base(args[0]), Name: name})
			if err != nil {
				return err
			}
			final, err := a.Follow(cmd.Context(), c, begun)
			if err != nil {
				return err
			}
			v, err := c.VM(cmd.Context(), final.Subject)
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(struct {
					VM        api.VM       `json:"vm"`
					Operation op.Operation `json:"operation"`
				}{v, final})
			}
			fmt.Fprintf(a.IO.Out, "%s is back, %s\n", term.Escape(v.Name), v.State)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&name, "name", "", "call it `NAME` from now on")
	return cmd
}
