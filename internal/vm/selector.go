package vm

import (
	"slices"
	"strings"

	"banger/internal/fault"
)

// Selector chooses VMs by their labels: a VM has to meet every term. The zero value chooses all.
type Selector struct{ terms []term }

// term is met by a label of this key, and where exact is set only by one of this value.
type term struct {
	key, value string
	exact      bool
}

// ParseSelector reads terms of the form KEY or KEY=VALUE. "KEY=" asks for an empty value.
func ParseSelector(texts []string) (Selector, error) {
	var s Selector
	for _, text := range texts {
		key, value, exact := strings.Cut(text, "=")
		if err := CheckLabels(map[string]string{key: value}); err != nil {
			return Selector{}, fault.From(err).WithOp("choose VMs by label", text)
		}
		s.terms = append(s.terms, term{key, value, exact})
	}
	return s, nil
}

// Matches reports whether a VM with these labels is chosen.
func (s Selector) Matches(labels map[string]string) bool {
	return !slices.ContainsFunc(s.terms, func(t term) bool {
		value, has := labels[t.key]
		return !has || t.exact && value != t.value
	})
}
