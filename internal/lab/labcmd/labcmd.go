// Package labcmd is banger-lab's command line.
package labcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/fault"
	"banger/internal/lab"
	"banger/internal/lab/guests"
	"banger/internal/vm"
)

// exitError carries a command's status out of the lab.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs banger-lab and returns its exit status.
func Main(args []string) int {
	// A caller that dies while a host is being built takes the builders with it; `run` handles its own.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGHUP)
	defer stop()
	root := &cobra.Command{
		Use:   "banger-lab",
		Short: "The project's own test host: a Debian VM under emulation in which KVM is real",
		Args:  cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(build(), run(), shell(), guest(), requirements(), kvmCheck(), firecracker(), tinyRoot(), images(), e2e(), testscript(), inGuest(), refusals(), benchCreate(), measureCreate(), benchFleet(), measureFleet(), benchLifecycle(), measureLifecycle(), benchNetwork(), benchDNS())
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var status exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	tell(err)
	return 1
}

// tell prints what failed, with the lab host's last words and what to do.
func tell(err error) {
	f := fault.From(err)
	fmt.Fprintln(os.Stderr, "banger-lab:", f)
	if f.Detail != "" {
		fmt.Fprintln(os.Stderr, "  "+strings.ReplaceAll(f.Detail, "\n", "\n  "))
	}
	if f.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", f.Hint)
	}
}

func open() (*lab.Lab, error) { return lab.New(".", os.Stderr) }

func build() *cobra.Command {
	return &cobra.Command{
		Use: "build", Short: "Build the lab host where the cache has none", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			return l.Build(cmd.Context())
		},
	}
}

func run() *cobra.Command {
	var r lab.Run
	var disk string
	var images []string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run a command in a throw-away lab host",
		Long: `Run a command in a throw-away lab host and return its exit status.

The repository is read-only at /src and its bin/ on PATH, with firecracker and jailer. /out is shared
with the folder given by --out. Nothing else that the command writes outlives the run.

With --image, /scratch holds a state directory with prepared images, and BANGER_STATE_DIR names it.`,
		Example: "  banger-lab run -- firecracker --version\n  banger-lab run --image debian:12 -- banger vm create dev",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Argv = args
			if disk != "" {
				size, err := vm.ParseSize(disk)
				if err != nil {
					return err
				}
				r.DiskSize = size
			}
			if verbose {
				r.Begun = func(d time.Duration) {
					fmt.Fprintf(os.Stderr, "lab: power-on to command: %.1f s\n", d.Seconds())
				}
			}
			return execute(cmd.Context(), r, images)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Systemd, "systemd", false, "boot the distribution's init")
	f.IntVar(&r.Memory, "memory", 2048, "memory in MiB")
	f.IntVar(&r.CPUs, "cpus", 1, "processors")
	f.StringVar(&r.Out, "out", "", "folder shared at /out")
	f.StringVar(&r.Images, "images", "", "folder shared read-only at /images")
	f.StringVar(&disk, "disk", "", "size of a blank XFS at /scratch, such as 8G")
	f.StringArrayVar(&images, "image", nil, "have this image prepared, such as debian:12 or tiny")
	cmd.MarkFlagsMutuallyExclusive("image", "disk")
	f.BoolVar(&r.Net, "net", false, "give it package registries")
	f.DurationVar(&r.Timeout, "timeout", 15*time.Minute, "end the run after this time")
	f.StringArrayVar(&r.Env, "env", nil, "NAME=VALUE for the command")
	f.BoolVarP(&verbose, "verbose", "v", false, "say how long the lab host took to boot")
	return cmd
}

func shell() *cobra.Command {
	return &cobra.Command{
		Use: "shell", Short: "A shell in a throw-away lab host", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fd := int(os.Stdin.Fd())
			if !term.IsTerminal(fd) {
				return fault.New(fault.Invalid, "standard input is not a terminal").WithOp("open lab shell", "").
					WithHint("use `banger-lab run -- COMMAND`")
			}
			old, err := term.MakeRaw(fd)
			if err != nil {
				return err
			}
			defer func() { _ = term.Restore(fd, old) }()
			return execute(cmd.Context(), lab.Run{
				Argv: []string{"bash", "-l"}, TTY: true, Stdin: os.Stdin, DiskSize: 8 << 30, Net: true, Timeout: 12 * time.Hour,
				Size: func() (rows, cols uint16) {
					w, h, err := term.GetSize(fd)
					if err != nil {
						return 24, 80
					}
					return uint16(h), uint16(w)
				},
			}, nil)
		},
	}
}

// execute builds what is missing and runs, with these images prepared.
func execute(ctx context.Context, r lab.Run, images []string) error {
	l, disk, err := prepare(ctx, images)
	if err != nil {
		return err
	}
	if disk != "" {
		r.Disk = disk
		r.Env = append([]string{"BANGER_STATE_DIR=" + guests.State}, r.Env...)
	}
	if r.Stdout == nil {
		r.Stdout = os.Stdout
	}
	r.Stderr = os.Stderr
	status, err := l.Run(ctx, r)
	if err != nil {
		return err
	}
	if status != 0 {
		return exitError(status)
	}
	return nil
}

// prepare makes what is not there of the lab host, and of a disk with images; "" where none are named.
func prepare(ctx context.Context, images []string) (l *lab.Lab, disk string, err error) {
	if l, err = open(); err != nil {
		return nil, "", err
	}
	if err = l.Build(ctx); err == nil && len(images) > 0 {
		disk, err = guests.Guests{Lab: l}.Disk(ctx, images...)
	}
	return l, disk, err
}

func guest() *cobra.Command {
	return &cobra.Command{
		Use: "guest", Short: "Inside the lab host: run the command that was ordered", Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) error { return lab.Guest() },
	}
}
