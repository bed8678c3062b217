// Package image holds the commands `banger image …`.
package image

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/exit"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/vm"
)

// New returns `banger image`.
func New(a *app.App) *cobra.Command {
	return app.Group("image", "Get and manage what VMs are made from",
		newPull(a), newImport(a), newList(a), newShow(a), newWarm(a), newDelete(a))
}

func newPull(a *app.App) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Bootstrap a distribution's image",
		Long: `Bootstrap an image from a distribution's package archive, and show each stage.
Debian's releases go by number, codename or suite: debian:12, debian:trixie, debian:stable.`,
		Example: "  banger image pull debian:12\n  banger image pull debian:13 --no-wait",
		Args:    app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			begun, err := c.PullImage(ctx, api.PullImage{Name: args[0]})
			if err != nil {
				return err
			}
			return finish(ctx, a, c, begun, noWait)
		},
		ValidArgsFunction: cobra.FixedCompletions([]string{"debian:12", "debian:13"}, cobra.ShellCompDirectiveNoFileComp),
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "print the operation's id and return")
	return cmd
}

// made is what pull and import print as JSON.
type made struct {
	Image     api.Image    `json:"image"`
	Operation op.Operation `json:"operation"`
}

func finish(ctx context.Context, a *app.App, c *client.Client, begun op.Operation, noWait bool) error {
	if noWait {
		return a.Begun(begun)
	}
	final, err := a.Follow(ctx, c, begun)
	if err != nil {
		return err
	}
	m, err := c.Image(ctx, final.Name)
	if err != nil {
		return err
	}
	if a.Data() {
		return a.Print(made{m, final})
	}
	fmt.Fprintf(a.IO.Out, "%s is ready: %s, kernel %s, %s on disk (%s)\n", a.IO.OutPalette().Bold(term.Escape(m.Name)),
		term.Escape(m.OS), term.Escape(m.Kernel.Version), vm.FormatSize(m.Root.Allocated), term.Duration(final.Ended.Sub(final.Created)))
	fmt.Fprintf(a.IO.Out, "next: %s\n", a.IO.OutPalette().Cyan("banger vm create --image "+term.Escape(m.Name)))
	return nil
}

func newList(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"},
		Short:       "List images",
		Args:        app.Args(0, 0),
		Annotations: app.ListsNames(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			images, err := c.Images(cmd.Context())
			if err != nil {
				return err
			}
			switch a.Output {
			case app.JSON, app.Formatted:
				return a.Print(images)
			case app.Names:
				for _, m := range images {
					fmt.Fprintln(a.IO.Out, term.Escape(m.Name))
				}
			case app.Table:
				if len(images) == 0 {
					a.Hint("no images; get one with: banger image pull debian:12")
					return nil
				}
				list(a, images)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func list(a *app.App, images []api.Image) {
	p, now := a.IO.OutPalette(), time.Now()
	rows := make([][]term.Cell, len(images))
	for i, m := range images {
		rows[i] = []term.Cell{
			{Text: m.Name, Style: p.Bold},
			{Text: m.ID, Style: p.Dim},
			term.Text(m.OS), term.Text(m.Kernel.Version), term.Text(m.Arch),
			term.Text(vm.FormatSize(m.Root.Allocated)), term.Text(term.Ago(m.Created, now)), term.Text(strings.Join(m.UsedBy, ",")),
		}
	}
	term.Table(a.IO.Out, p, []string{"NAME", "ID", "SYSTEM", "KERNEL", "ARCH", "ON DISK", "MADE", "USED BY"}, rows)
}

func newShow(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show what an image holds",
		Long:  "Show what an image holds. Its package list is in the JSON form.",
		Args:  app.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			m, err := c.Image(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.Data() {
				return a.Print(m)
			}
			show(a, m)
			return nil
		},
		ValidArgsFunction: a.Complete(1, app.Images),
	}
}

func show(a *app.App, m api.Image) {
	p, now := a.IO.OutPalette(), time.Now()
	packages := ""
	if len(m.Packages) > 0 {
		packages = fmt.Sprintf("%d (sha256 %.12s)", len(m.Packages), m.PackagesSHA256)
	}
	var services []string
	for _, s := range m.Services {
		services = append(services, fmt.Sprintf("%s on port %d", s.Name, s.Port))
	}
	term.Fields(a.IO.Out, p,
		term.Text("name"), term.Cell{Text: m.Name, Style: p.Bold},
		term.Text("id"), term.Text(m.ID),
		term.Text("system"), term.Text(m.OS),
		term.Text("architecture"), term.Text(m.Arch),
		term.Text("source"), term.Text(m.Source),
		term.Text("made"), term.Text(term.Ago(m.Created, now)),
		term.Text("kernel"), term.Text(m.Kernel.Version),
		term.Text("init"), term.Text(m.Init),
		term.Text("root disk"), term.Text(disk(m.Root.Size, m.Root.Allocated, m.Root.FSType)),
		term.Text("work seed"), term.Text(disk(m.WorkSeed.Size, m.WorkSeed.Allocated, m.WorkSeed.FSType)),
		term.Text("services"), term.Text(strings.Join(services, ", ")),
		term.Text("packages"), term.Text(packages),
		term.Text("used by"), term.Text(strings.Join(m.UsedBy, ", ")),
	)
}

func disk(size, allocated int64, fstype string) string {
	return fmt.Sprintf("%s, %s on disk, %s", vm.FormatSize(size), vm.FormatSize(allocated), fstype)
}

// deleted is what delete prints as JSON, for each image.
type deleted struct {
	Name  string       `json:"name"`
	Error *fault.Error `json:"error,omitempty"`
}

func newDelete(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"},
		Short: "Delete images that no VM uses",
		Args:  app.Args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := a.Connect(ctx)
			if err != nil {
				return err
			}
			var first error
			outcomes := make([]deleted, len(args))
			for i, name := range args {
				outcomes[i].Name = name
				if err := c.DeleteImage(ctx, name); err != nil {
					outcomes[i].Error = fault.From(err)
					a.Report(err)
					if first == nil {
						first = exit.Status(exit.Of(err))
					}
					continue
				}
				if !a.Data() {
					fmt.Fprintf(a.IO.Out, "%s is deleted\n", a.IO.OutPalette().Bold(term.Escape(name)))
				}
			}
			if a.Data() {
				if err := a.Print(outcomes); err != nil {
					return err
				}
			}
			return first
		},
		ValidArgsFunction: a.Complete(-1, app.Images),
	}
}
