package firecracker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
)

func TestParseVersion(t *testing.T) {
	for output, want := range map[string]Version{
		"Firecracker v1.12.1\n\n2026-01-01 [anonymous-instance:main] exiting": {1, 12, 1},
		"Firecracker v1.16.0-dev\n": {1, 16, 0},
	} {
		if got, ok := parseVersion(output); !ok || got != want {
			t.Errorf("%q: %v, %v", output, got, ok)
		}
	}
	for _, output := range []string{"", "Firecracker v1.12\n", "Jailer v1.12.1\n", "Firecracker v1.12.99999999999999999999\n", "xFirecracker v1.12.1\n"} {
		if got, ok := parseVersion(output); ok {
			t.Errorf("%q: accepted as %v", output, got)
		}
	}
}

func TestProbeRefuses(t *testing.T) {
	dir := t.TempDir()
	program := func(name, script string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, other, failing := program("old", "echo Firecracker v1.12.0"), program("other", "echo GNU coreutils 9"), program("failing", "echo no >&2; exit 2")
	for path, want := range map[string]struct {
		code fault.Code
		text string
	}{
		dir + "/none": {fault.Requirement, "Firecracker is not installed: run \"" + dir + "/none\": the program cannot be executed: stat " + dir + "/none: no such file or directory"},
		old:           {fault.Incompatible, "Firecracker 1.12.0 is too old"},
		other:         {fault.Incompatible, "it is not Firecracker: `--version` says \"GNU coreutils 9\\n\""},
		failing:       {fault.Incompatible, "it does not tell its version: " + failing + ": exit status 2: no"},
	} {
		_, err := Probe(t.Context(), path)
		if !fault.Is(err, want.code) || err.Error() != `find hypervisor "`+path+`": `+want.text {
			t.Errorf("%v: %v", fault.CodeOf(err), err)
		}
		if hint := fault.From(err).Hint; !strings.Contains(hint, "1.12.1 or newer") {
			t.Errorf("hint: %s", hint)
		}
	}
}

func TestQuirksByVersion(t *testing.T) {
	sources := func(v Version) []string {
		var s []string
		for _, q := range Quirks(v) {
			if q.Source != "" {
				s = append(s, q.Source)
			}
		}
		slices.Sort(s)
		return s
	}
	for v, want := range map[Version][]string{
		{1, 12, 1}: {"#5165", "#5165", "#5274", "#5485", "#5494", "#5631", "#5688", "#5738", "#5760", "#5762", "#5764", "#5794", "#5809", "#5882", "#5958"},
		{1, 13, 2}: {"#5165", "#5485", "#5494", "#5688", "#5738", "#5760", "#5762", "#5764", "#5794", "#5809", "#5882", "#5958"},
		{1, 14, 0}: {"#5165", "#5631", "#5688", "#5698", "#5705", "#5738", "#5760", "#5762", "#5764", "#5794", "#5809", "#5882", "#5958"},
		{1, 14, 4}: {"#5165", "#5688", "#5738", "#5760", "#5764", "#5882", "#5958"},
		{1, 15, 0}: {"#5165", "#5738", "#5760", "#5762", "#5764", "#5794", "#5809", "#5882", "#5958"},
		{1, 16, 0}: {"#5165", "#5958", "#6100"},
		{1, 16, 1}: {"#5165", "#6100"},
		{2, 0, 0}:  {"#5165", "#6100"},
	} {
		if d := cmp.Diff(want, sources(v)); d != "" {
			t.Errorf("%v: %s", v, d)
		}
	}
}

// The lines are those of Firecracker 1.12.1.
func TestRefusal(t *testing.T) {
	const prefix = "2026-11-23T12:16:47.442701992 [abc:main:ERROR] RunWithApiError error: Failed to build MicroVM from Json: "
	for _, c := range []struct {
		line, msg string
		code      fault.Code
		hint      string
	}{
		{
			"Could not Start MicroVM from one single json: System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: Unable to read elf header",
			"Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: Unable to read elf header",
			fault.Incompatible, "kernel cannot boot",
		}, {
			"Could not Start MicroVM from one single json: Internal error while starting microVM: Kvm error: Error creating KVM object: No such file or directory (os error 2) Make sure the user launching the firecracker process is \\",
			"Kvm error: Error creating KVM object: No such file or directory (os error 2) Make sure the user launching the firecracker process is \\",
			fault.Requirement, "KVM is not usable",
		}, {
			"Could not Start MicroVM from one single json: Internal error while starting microVM: Kvm error: The host kernel reports an invalid KVM API version: -1",
			"Kvm error: The host kernel reports an invalid KVM API version: -1",
			fault.Requirement, "KVM is not usable",
		}, {
			"Configuration for VMM from one single json failed: VM config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled.",
			"VM config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled.",
			fault.Invalid, "another number of vCPUs",
		}, {
			"Configuration for VMM from one single json failed: Block device error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) root.ext4",
			"Block device error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) root.ext4",
			fault.Internal, "look at the logs",
		},
	} {
		f := refusal([]string{
			"2026-11-23T12:16:47.409995025 [abc:main:INFO] Running Firecracker v1.12.1", prefix + c.line,
			"2026-11-23T12:16:47.442794840 [abc:main:ERROR] Firecracker exiting with error. exit_code=1",
		})
		if f.Msg != c.msg || f.Code != c.code || !strings.Contains(f.Hint, c.hint) {
			t.Errorf("%s: %s\nhint: %s", f.Code, f.Msg, f.Hint)
		}
	}
	if f := refusal(nil); f.Code != fault.Internal || f.Msg == "" || f.Hint == "" {
		t.Errorf("silence: %+v", f)
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	now := time.Unix(1000, 0)
	passed := 0
	for range 250 {
		if ok, _ := l.allow(now); ok {
			passed++
		}
	}
	ok, dropped := l.allow(now.Add(time.Second))
	if passed != linesPerSec || !ok || dropped != 250-linesPerSec {
		t.Errorf("%d passed, then %v with %d dropped", passed, ok, dropped)
	}
}
