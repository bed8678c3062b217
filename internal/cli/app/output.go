package app

import (
	"slices"
	"strings"

	"banger/internal/fault"
)

// Output is how results are printed. It is a flag's value.
type Output string

// The forms. Names is for lists: one name a line.
const (
	Table Output = "table"
	JSON  Output = "json"
	Names Output = "name"
)

// String implements pflag.Value.
func (o *Output) String() string { return string(*o) }

// Type implements pflag.Value; it is what help shows.
func (o *Output) Type() string { return "table|json|name" }

// Set implements pflag.Value.
func (o *Output) Set(s string) error {
	forms := []string{string(Table), string(JSON), string(Names)}
	if !slices.Contains(forms, s) {
		return fault.New(fault.Invalid, "there is no such form").WithOp("choose output", s).WithHint("use %s", strings.Join(forms, ", "))
	}
	*o = Output(s)
	return nil
}
