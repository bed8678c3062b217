package proc

import (
	"strings"
	"testing"
)

func TestParseCPU(t *testing.T) {
	const one = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2250.000\nflags\t\t: fpu svm\n\n"
	first, err := parseCPU(one + strings.ReplaceAll(one, "svm", "vmx"))
	if err != nil || !strings.HasPrefix(first, "AMD EPYC ") {
		t.Fatalf("it is %q, %v", first, err)
	}
	if faster, _ := parseCPU(strings.ReplaceAll(one, "2250", "3000")); faster != first {
		t.Errorf("it is another processor at another speed: %q, %q", faster, first)
	}
	if other, _ := parseCPU(strings.ReplaceAll(one, "svm", "avx")); other == first {
		t.Errorf("other features make no other processor: %q", other)
	}
	if none, err := parseCPU("processor\t: 0\n\n"); err == nil {
		t.Errorf("nothing is %q", none)
	}
}
