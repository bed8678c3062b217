package labcmd

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

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

func testscript() *cobra.Command {
	var s scripts.Suite
	var ledger string
	cmd := &cobra.Command{
		Use: "testscript DIR", Short: "Inside the lab host: run end-to-end scripts", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Dir, s.Host, s.Out = args[0], scripts.LabHost{}, os.Stdout
			s.Ledger = scripts.Ledger(ledger)
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
	f.StringVar(&ledger, "ledger", "", "folder in which it is written down which host runs which script")
	f.StringVar(&s.Name, "name", "", "this host's in the ledger")
	f.StringVar(&s.Work, "work", "/scratch", "folder for the scripts' homes")
	f.StringVar(&s.Logs, "logs", "", "folder for the logs of scripts that fail")
	f.BoolVarP(&s.Verbose, "verbose", "v", false, "print all that scripts do")
	return cmd
}
