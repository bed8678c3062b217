package scripts

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// exits runs a banger command that must fail with the given status, and holds it to what is promised of
// every error: one line that says what failed, and a hint.
//
//	exits 3 banger vm show nosuch
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: exits STATUS COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
	said := ts.ReadFile("stderr")
	if strings.Count("\n"+said, "\nbanger: ") != 1 {
		ts.Fatalf("the error is not one line")
	}
	if !strings.Contains(said, "\nhint: ") {
		ts.Fatalf("the error has no hint")
	}
}
