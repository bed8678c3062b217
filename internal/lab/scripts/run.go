package scripts

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// run is one script's run, as the testing package would keep it: scripts run outside of `go test`,
// on a host that has no Go.
type run struct {
	log     strings.Builder
	failed  bool
	verbose bool
}

var _ testscript.T = (*run)(nil)

// runScript runs on a goroutine of its own, which FailNow ends.
func runScript(t *run, p testscript.Params) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		testscript.RunT(t, p)
	}()
	<-done
}

// Run runs the only script there is.
func (t *run) Run(_ string, f func(testscript.T)) { f(t) }

// Log adds to the log.
func (t *run) Log(args ...any) { fmt.Fprintln(&t.log, args...) }

// FailNow marks the script failed and ends it.
func (t *run) FailNow() {
	t.failed = true
	runtime.Goexit()
}

// Fatal is Log and FailNow.
func (t *run) Fatal(args ...any) {
	t.Log(args...)
	t.FailNow()
}

// Skip fails: a script that lacks what it needs protects nothing.
func (t *run) Skip(args ...any) { t.Fatal(append([]any{"a script may not skip itself:"}, args...)...) }

// Parallel does nothing: scripts share one host.
func (t *run) Parallel() {}

// Verbose tells whether to log the environment and what phases did that went well.
func (t *run) Verbose() bool { return t.verbose }
