package kvm

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"banger/internal/fault"
)

func TestExtension(t *testing.T) {
	for info, want := range map[string]string{
		"processor\t: 0\nflags\t\t: fpu vmx lm\n\nprocessor\t: 1\nflags\t\t: fpu vmx lm\n": "vmx",
		"flags\t\t: fpu svm lm\n":                      "svm",
		"flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n": "",
		"model name\t: svm\nFeatures\t: fp asimd\n":    "",
		"": "",
	} {
		if got := extension([]byte(info)); got != want {
			t.Errorf("%q: %q", info, got)
		}
	}
}

// TestCheck holds on any host: KVM is refused with a reason, or all of it was found.
func TestCheck(t *testing.T) {
	s, err := Check()
	if err == nil {
		if s.APIVersion != 12 || s.Extension == "" && runtime.GOARCH == "amd64" {
			t.Errorf("usable, but %+v", s)
		}
		return
	}
	if !fault.Is(err, fault.Requirement) || !strings.HasPrefix(err.Error(), `use "/dev/kvm": `) || fault.From(err).Hint == "" {
		t.Errorf("got %v", err)
	}
	t.Logf("not usable: %v", err)
}

// TestExtensionOfThisHost ties the parser to a real file.
func TestExtensionOfThisHost(t *testing.T) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	has := strings.Contains(string(info), " vmx ") || strings.Contains(string(info), " svm ")
	if got := extension(info) != ""; got != has {
		t.Errorf("found %v, want %v", got, has)
	}
}
