// Package cli is the command `banger`.
package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/cli/app"
	"banger/internal/cli/dns"
	"banger/internal/cli/exit"
	"banger/internal/cli/image"
	"banger/internal/cli/internalcmd"
	"banger/internal/cli/net"
	"banger/internal/cli/operation"
	"banger/internal/cli/sshconfig"
	"banger/internal/cli/system"
	"banger/internal/cli/vm"
	"banger/internal/fault"
)

// Run runs the command line and returns the exit status. Errors have been printed.
func Run(ctx context.Context, a *app.App, args []string) int {
	root := New(a)
	complete(root)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	sshconfig.Keep(ctx, a)
	if err == nil {
		return exit.OK
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		err = fault.New(fault.Canceled, "interrupted")
	}
	if wantsJSON(args) {
		a.Output = app.JSON // also for an error in the flags before it
	}
	a.Report(err)
	return exit.Of(err)
}

// New returns the tree of commands.
func New(a *app.App) *cobra.Command {
	a.Output = app.Table
	root := app.Group("banger", "Persistent Firecracker microVMs as development machines",
		internalcmd.New(a), newExitCodes())
	addGroup(root, "Machines:", vm.New(a), image.New(a), net.New(a), operation.New(a))
	addGroup(root, "Host:", append(system.Commands(a), dns.New(a), sshconfig.New(a))...)
	root.Long = `banger runs persistent development machines, each a Firecracker microVM of its own.

A VM keeps its disks until you delete it. Names, ids and unique prefixes of ids all select one.`
	root.Example = `  banger doctor                       what this host has and lacks
  banger image pull debian:12         get an image, once
  banger vm create dev                make a VM and boot it
  banger vm ssh dev                   log in
  banger vm stop dev                  shut it down; its disks stay
  banger vm delete dev                remove it and its disks`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.IO.In)
	root.SetOut(a.IO.Out)
	root.SetErr(a.IO.Err)
	root.SetFlagErrorFunc(app.FlagError)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.CheckOutput(cmd) }
	root.Version = a.Build.String()
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&a.Socket, "socket", "", "the daemon's socket, a `PATH` (default: from the configuration)")
	f.VarP(&a.Output, "output", "o", "how to print results; name is for lists")
	f.Var(&a.Format, "format", "print results by a template of Go's, such as '{{.name}} {{.state}}'; fields as -o json has them")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions( // fails only for a flag that is not there
		[]string{string(app.Table), string(app.JSON), string(app.Names)}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("format", cobra.FixedCompletions( // the same
		[]string{"{{.name}}", "{{json .}}"}, cobra.ShellCompDirectiveNoFileComp))
	return root
}

func addGroup(root *cobra.Command, title string, children ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range children {
		c.GroupID = title
	}
	root.AddCommand(children...)
}

// complete adds the commands that cobra brings, which take any word for a wish for help.
func complete(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.RunE = func(cmd *cobra.Command, words []string) error {
				about, rest, err := cmd.Root().Find(words)
				if err != nil {
					return err
				}
				about.InitDefaultHelpFlag()
				if about.HasSubCommands() {
					return app.HelpOn(about, rest)
				}
				return about.Help()
			}
		case "completion":
			c.Args, c.RunE = cobra.ArbitraryArgs, app.HelpOn
		}
	}
}

// newExitCodes is a help topic: a command that cannot be run.
func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What banger's exit statuses mean",
		Long: "Every kind of failure has its own exit status; with -o json its code is in the error too.\n" +
			"Where a command works on several VMs it is the one that all failures share, else 1.\n" +
			"'banger vm ssh' passes on the status of the command or of ssh.\n\n" + exit.Help(),
	}
}

func wantsJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--output="); ok {
			return value == string(app.JSON)
		}
		if value, ok := strings.CutPrefix(arg, "-o"); ok && value != "" {
			return strings.TrimPrefix(value, "=") == string(app.JSON)
		}
		if (arg == "-o" || arg == "--output") && i+1 < len(args) {
			return args[i+1] == string(app.JSON)
		}
	}
	return false
}
