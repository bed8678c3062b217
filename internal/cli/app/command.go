package app

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/client"
	"banger/internal/fault"
)

// Group returns a command that only holds others. Without one of them it shows its help; with one it
// does not have, it names the nearest.
func Group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       HelpOn,
		ValidArgsFunction:          cobra.NoFileCompletions,
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(children...)
	return cmd
}

// HelpOn runs a command that only holds others: the words are none of theirs.
func HelpOn(cmd *cobra.Command, words []string) error {
	if len(words) == 0 {
		return cmd.Help()
	}
	return unknown(cmd, words[0])
}

func unknown(cmd *cobra.Command, word string) error {
	err := fault.New(fault.Invalid, "there is no such command").WithOp(cmd.CommandPath(), word)
	if i := slices.IndexFunc(deeper(cmd), func(c *cobra.Command) bool { return c.Name() == word || c.HasAlias(word) }); i >= 0 {
		return err.WithHint("did you mean `%s`?", deeper(cmd)[i].CommandPath())
	}
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return err.WithHint("did you mean `%s %s`?", cmd.CommandPath(), near[0])
	}
	return err.WithHint("`%s --help` lists them", cmd.CommandPath())
}

// deeper lists the commands two levels down, those about VMs first: `banger list` most likely means them.
func deeper(cmd *cobra.Command) []*cobra.Command {
	var found []*cobra.Command
	for _, group := range cmd.Commands() {
		if group.Name() == "vm" {
			found = append(group.Commands(), found...)
		} else if !group.Hidden {
			found = append(found, group.Commands()...)
		}
	}
	return found
}

// Args checks the number of arguments. most < 0 means any number.
func Args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		bad := func(format string, a ...any) error {
			return fault.New(fault.Invalid, format, a...).WithOp(cmd.CommandPath(), "").WithHint("usage: %s", cmd.UseLine())
		}
		switch {
		case len(args) < least:
			return bad("it needs %s", strings.Join(strings.Fields(cmd.Use)[1:], " "))
		case most >= 0 && len(args) > most:
			return bad("%q is one argument too many", args[most])
		}
		return nil
	}
}

// FlagError turns what pflag says about a flag into a fault that says what to do.
func FlagError(cmd *cobra.Command, err error) error {
	hint := "`" + cmd.CommandPath() + " --help` lists its flags"
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		e := fault.From(errors.Unwrap(bad))
		if e.Code == fault.Invalid {
			e = e.WithOp("read --"+bad.GetFlag().Name, bad.GetValue())
		} else {
			e = fault.New(fault.Invalid, "it is not a valid value").WithOp("read --"+bad.GetFlag().Name, bad.GetValue())
		}
		if e.Hint == "" {
			e = e.WithHint("%s", hint)
		}
		return e
	}
	return fault.New(fault.Invalid, "%w", err).WithOp(cmd.CommandPath(), "").WithHint("%s", hint)
}

// ListsNames marks, as a command's annotations, that it can print `-o name`.
func ListsNames() map[string]string { return map[string]string{"output": string(Names)} }

// Raw marks, as a command's annotations, that it prints no result which a template could print.
func Raw() map[string]string { return map[string]string{"output": "raw"} }

// CheckOutput refuses -o name where there is no list, and --format where there is nothing to format.
func (a *App) CheckOutput(cmd *cobra.Command) error {
	bad := func(msg, hint string) error {
		return fault.New(fault.Invalid, "%s", msg).WithOp(cmd.CommandPath(), "").WithHint("%s", hint)
	}
	switch {
	case a.Output == Names && cmd.Annotations["output"] != string(Names):
		return bad("only lists can be printed as names", "use -o table or -o json")
	case !a.Format.Given():
		return nil
	case cmd.Flags().Changed("output"):
		return bad("--output and --format do not go together", "leave one of them out")
	case cmd.Annotations["output"] == "raw":
		return bad("it prints nothing that a template could", "leave --format out")
	}
	a.Output = Formatted
	return nil
}

// Completion asks a daemon that is already there for words, quickly, and is silent when there is none.
type Completion func(ctx context.Context, c *client.Client) ([]string, error)

// Complete offers words for the first most arguments (any number when most < 0).
func (a *App) Complete(most int, words Completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		c, _, err := a.Existing()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := words(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// VMs are the words that name VMs.
func VMs(ctx context.Context, c *client.Client) ([]string, error) {
	vms, err := c.BriefVMs(ctx)
	words := make([]string, len(vms))
	for i, v := range vms {
		words[i] = v.Name + "\t" + string(v.State)
	}
	return words, err
}

// Images are the words that name images.
func Images(ctx context.Context, c *client.Client) ([]string, error) {
	images, err := c.Images(ctx)
	words := make([]string, len(images))
	for i, m := range images {
		words[i] = m.Name + "\t" + m.OS
	}
	return words, err
}

// Operations are the words that name operations.
func Operations(ctx context.Context, c *client.Client) ([]string, error) {
	ops, err := c.Operations(ctx)
	words := make([]string, len(ops))
	for i, o := range ops {
		words[i] = string(o.ID) + "\t" + o.Kind + " " + o.Name
	}
	return words, err
}
