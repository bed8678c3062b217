package labcmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/fault"
	"banger/internal/host/exec"
	"banger/internal/host/kvm"
	"banger/internal/lab"
	"banger/internal/lab/guests"
	"banger/internal/lab/scripts"
	"banger/internal/lab/tinyroot"
)

func requirements() *cobra.Command {
	return &cobra.Command{
		Use: "requirements", Short: "List the Debian packages that the lab needs, and fail where programs are missing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, pkg := range slices.Sorted(maps.Values(lab.Requirements())) {
				fmt.Fprintln(cmd.OutOrStdout(), pkg)
			}
			return lab.CheckRequirements()
		},
	}
}

func kvmCheck() *cobra.Command {
	return &cobra.Command{
		Use: "kvm", Short: "Tell whether KVM is usable here, so that the lab is not needed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := kvm.Check()
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "API version %d, processor with %s\n", s.APIVersion, s.Extension)
			}
			return err
		},
	}
}

func firecracker() *cobra.Command {
	return &cobra.Command{
		Use: "firecracker", Short: "Fetch Firecracker for tests and print its directory", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			dir, err := l.Firecracker(cmd.Context())
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), dir)
			}
			return err
		},
	}
}

func tinyRoot() *cobra.Command {
	return &cobra.Command{
		Use: "tiny-root FILE", Short: "Write the smallest guest root, a static busybox and nothing else, as a tar archive", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := exec.LookPath("busybox")
			if err != nil {
				return err
			}
			box, err := tinyroot.Busybox(path)
			if err != nil {
				return err
			}
			f, err := os.Create(args[0])
			if err != nil {
				return err
			}
			return errors.Join(tinyroot.Write(f, box), f.Close())
		},
	}
}

func images() *cobra.Command {
	return &cobra.Command{
		Use: "images [NAME...]", Short: "Prepare images for `run --image`", ValidArgs: guests.Names(),
		Long: "Prepare images for `run --image`: a Debian release, or one of " + strings.Join(guests.Names(), ", ") + ", which all are prepared when none is named.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := open()
			if err != nil {
				return err
			}
			if err := lab.CheckRequirements(); err != nil {
				return err
			}
			if len(args) == 0 {
				args = guests.Names()
			}
			_, err = (guests.Guests{Lab: l}).Disk(cmd.Context(), args...)
			return err
		},
	}
}

func e2e() *cobra.Command {
	var match, out string
	var verbose bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "e2e", Short: "Run end-to-end scripts in the lab, with whatever they need", Args: cobra.NoArgs,
		Example: "  banger-lab e2e\n  banger-lab e2e --run vm/life -v",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.CheckRequirements(); err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			passed := filepath.Join(out, "passed")
			if err := os.Remove(passed); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			plain := suiteRun{match: match, out: out, verbose: verbose, timeout: timeout}
			units := plain
			units.systemd = true
			found, err := plain.run(cmd.Context())
			more, unitsErr := units.run(cmd.Context())
			if err = errors.Join(err, unitsErr); err == nil && !found && !more {
				return fault.New(fault.NotFound, "no script matches %q", match).WithOp("run scripts", "e2e").
					WithHint("scripts are named area/name, as in vm/life")
			}
			if _, failed := errors.AsType[exitError](err); failed {
				fmt.Fprintln(os.Stderr, "logs of failed scripts:", out)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&match, "run", "", "only the scripts of this area, or of this area/name; * matches")
	f.StringVar(&out, "logs", filepath.Join("bin", "e2e-logs"), "folder for the logs of scripts that fail")
	f.BoolVarP(&verbose, "verbose", "v", false, "print all that scripts do")
	f.DurationVar(&timeout, "timeout", 30*time.Minute, "end the run after this time")
	return cmd
}

// suiteRun is a run of the scripts that match, on one kind of lab host.
type suiteRun struct {
	match, out string
	verbose    bool
	timeout    time.Duration
	systemd    bool
}

// losses is how often a run is begun again, with the scripts that have not passed, because its host was lost.
const losses = 2

// run reports whether there were scripts to run, and how they ended.
func (r suiteRun) run(ctx context.Context) (found bool, err error) {
	for left := losses; ; left-- {
		suite := scripts.Suite{Dir: "e2e", Match: r.match, Systemd: r.systemd, Passed: filepath.Join(r.out, "passed")}
		names, err := suite.Names()
		if err != nil || len(names) == 0 {
			return found, err
		}
		found = true
		argv := []string{
			lab.GuestBinary, "testscript", "--run", r.match, "--systemd=" + strconv.FormatBool(r.systemd),
			"--images", guests.State + "/images", "--logs", "/out", "--passed", "/out/passed",
		}
		if r.verbose {
			argv = append(argv, "-v")
		}
		err = execute(ctx, lab.Run{Argv: append(argv, "/src/e2e"), Out: r.out, Timeout: r.timeout, Systemd: r.systemd}, guests.Names())
		if !errors.Is(err, lab.ErrLost) || left == 0 {
			return found, err
		}
		tell(err)
		fmt.Fprintln(os.Stderr, "the scripts that have not passed run again, on a new host")
	}
}

func testscript() *cobra.Command {
	var s scripts.Suite
	cmd := &cobra.Command{
		Use: "testscript DIR", Short: "Inside the lab host: run end-to-end scripts", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Dir, s.Host, s.Out = args[0], scripts.LabHost{}, os.Stdout
			r, err := s.Run(cmd.Context())
			if err == nil && r.Failed > 0 {
				return exitError(1)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Match, "run", "", "only the scripts of this area, or of this area/name")
	f.BoolVar(&s.Systemd, "systemd", false, "the scripts that want a host with systemd")
	f.StringVar(&s.Images, "images", "", "prepared images that each script gets")
	f.StringVar(&s.Passed, "passed", "", "file of scripts that have passed, which is added to")
	f.StringVar(&s.Work, "work", "/scratch", "folder for the scripts' homes")
	f.StringVar(&s.Logs, "logs", "", "folder for the logs of scripts that fail")
	f.BoolVarP(&s.Verbose, "verbose", "v", false, "print all that scripts do")
	return cmd
}
