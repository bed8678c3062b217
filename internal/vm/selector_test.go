package vm_test

import (
	"testing"

	"banger/internal/fault"
	"banger/internal/vm"
)

func TestSelector(t *testing.T) {
	labels := map[string]string{"project": "website", "ci": "", "eq": "a=b"}
	for _, c := range []struct {
		terms []string
		want  bool
	}{
		{nil, true},
		{[]string{"project"}, true},
		{[]string{"project=website"}, true},
		{[]string{"project=web"}, false},
		{[]string{"project="}, false},
		{[]string{"ci="}, true},
		{[]string{"none"}, false},
		{[]string{"none="}, false},
		{[]string{"eq=a=b"}, true},
		{[]string{"project", "ci"}, true},
		{[]string{"project", "none"}, false},
		{[]string{"project=website", "project=other"}, false},
	} {
		s, err := vm.ParseSelector(c.terms)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(labels); got != c.want {
			t.Errorf("%q: %v, want %v", c.terms, got, c.want)
		}
	}
	for _, bad := range []string{"", "=x", "Upper=x", "a b"} {
		_, err := vm.ParseSelector([]string{"project", bad})
		if !fault.Is(err, fault.Invalid) || fault.From(err).Subject != bad || fault.From(err).Hint == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
