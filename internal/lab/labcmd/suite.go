package labcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/fault"
	"banger/internal/lab"
	"banger/internal/lab/guests"
	"banger/internal/lab/scripts"
)

func e2e() *cobra.Command {
	var r suiteRun
	cmd := &cobra.Command{
		Use: "e2e", Short: "Run end-to-end scripts in the lab, with whatever they need", Args: cobra.NoArgs,
		Long:    "Run end-to-end scripts in the lab, with whatever they need. Lab hosts side by side share the scripts.",
		Example: "  banger-lab e2e\n  banger-lab e2e --run vm/life -v",
		RunE:    func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&r.match, "run", "", "only the scripts of this area, or of this area/name; * matches")
	f.StringVar(&r.logs, "logs", filepath.Join("bin", "e2e-logs"), "folder for the logs of scripts that fail")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "print all that scripts do")
	f.DurationVar(&r.timeout, "timeout", 30*time.Minute, "end the run after this time")
	f.IntVar(&r.hosts, "hosts", runtime.NumCPU(), "lab hosts side by side, each on a processor of its own")
	return cmd
}

// suiteRun is a run of the scripts that match.
type suiteRun struct {
	match, logs string
	verbose     bool
	timeout     time.Duration
	hosts       int
}

// hostKinds is how many kinds of lab hosts there are: with systemd, and without.
const hostKinds = 2

// losses is how often a host that was lost is replaced by one that runs what it had not finished.
const losses = 2

// shelf is the folder of the logs that holds the ledger.
const shelf = "ledger"

func (r suiteRun) run(ctx context.Context) error {
	if err := lab.CheckRequirements(); err != nil {
		return err
	}
	ledger := filepath.Join(r.logs, shelf)
	if err := errors.Join(os.RemoveAll(ledger), os.MkdirAll(ledger, 0o700)); err != nil {
		return err
	}
	count := 0
	for _, systemd := range []bool{false, true} {
		left, err := r.suite(systemd).Left()
		if err != nil {
			return err
		}
		count += len(left)
	}
	if count == 0 {
		return fault.New(fault.NotFound, "no script matches %q", r.match).WithOp("run scripts", "e2e").
			WithHint("scripts are named area/name, as in vm/life")
	}
	if _, _, err := prepare(ctx, guests.Names()); err != nil { // once, before all want it at the same time
		return err
	}
	begun := time.Now()
	var out sync.Mutex
	errs := make([]error, min(r.hosts, count))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			w := &wholeLines{mu: &out, to: os.Stdout}
			errs[i] = errors.Join(r.host(ctx, i, w), w.flush())
		})
	}
	wg.Wait()
	result, err := r.suite(false).Ledger.Result()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%d passed, %d failed in %.1f s\n", result.Passed, result.Failed, time.Since(begun).Seconds())
	if result.Failed > 0 {
		fmt.Fprintln(os.Stderr, "logs of failed scripts:", r.logs)
	}
	for _, err := range errs {
		if status := exitError(0); err != nil && !errors.As(err, &status) {
			tell(err)
		}
	}
	if errors.Join(errs...) != nil || result.Passed < count {
		return exitError(1)
	}
	return nil
}

func (r suiteRun) suite(systemd bool) scripts.Suite {
	return scripts.Suite{Dir: "e2e", Match: r.match, Systemd: systemd, Ledger: scripts.Ledger(filepath.Join(r.logs, shelf))}
}

// host runs what is left of the scripts, of one kind after the other. The first host begins with the plain ones, and
// the second with the others.
func (r suiteRun) host(ctx context.Context, index int, out io.Writer) error {
	var errs []error
	for kind := range hostKinds {
		systemd := (kind+index)%hostKinds == 1
		for lost := 0; ; lost++ {
			left, err := r.suite(systemd).Left()
			if err != nil {
				return err
			}
			if len(left) == 0 {
				break
			}
			name := strconv.Itoa(index)
			argv := []string{
				lab.GuestBinary, "testscript", "--run", r.match, "--systemd=" + strconv.FormatBool(systemd),
				"--images", guests.State + "/images", "--logs", "/out", "--ledger", "/out/" + shelf, "--name", name,
			}
			if r.verbose {
				argv = append(argv, "-v")
			}
			err = execute(ctx, lab.Run{Argv: append(argv, "/src/e2e"), Out: r.logs, Timeout: r.timeout, Systemd: systemd, Stdout: out}, guests.Names())
			if !errors.Is(err, lab.ErrLost) || lost == losses {
				errs = append(errs, err)
				break
			}
			tell(err)
			fmt.Fprintln(os.Stderr, "the scripts that it had not finished run again, on a new host")
			if err := r.suite(systemd).Ledger.Release(name); err != nil {
				return err
			}
		}
	}
	return errors.Join(errs...)
}

// wholeLines passes on what is written line by line, so that those of several writers do not mix.
type wholeLines struct {
	mu   *sync.Mutex // the writers'
	to   io.Writer
	rest []byte // the line that is not whole yet
}

func (w *wholeLines) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.to.Write(w.rest[:end]); err != nil {
		return 0, err
	}
	w.rest = append(w.rest[:0], w.rest[end:]...)
	return len(p), nil
}

// flush passes on a last line that was never ended.
func (w *wholeLines) flush() error {
	if len(w.rest) == 0 {
		return nil
	}
	_, err := w.Write([]byte{'\n'})
	return err
}
