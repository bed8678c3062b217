package vm

import (
	"bytes"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	nouns "banger/internal/vm"
)

// TestTheListSaysWhatAils holds that a VM which runs on though something of it is lost is told from one that is well, and
// that why another is down is not taken for it.
func TestTheListSaysWhatAils(t *testing.T) {
	for reason, want := range map[string]string{"": "", "its root overlay is lost": "AILS"} {
		var out bytes.Buffer
		listTable(&app.App{IO: &term.IO{Out: &out}}, []api.VM{
			{Name: "dev", State: nouns.Running, Reason: reason},
			{Name: "old", State: nouns.Crashed, Reason: "it panicked"},
		})
		if text := out.String(); strings.Contains(text, "AILS") != (want != "") || !strings.Contains(text, reason) || strings.Contains(text, "panicked") {
			t.Errorf("%q:\n%s", reason, text)
		}
	}
}
