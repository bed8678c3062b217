package app

import (
	"slices"
	"strings"

	"banger/internal/cli/term"
	"banger/internal/fault"
)

// Output is how results are printed. It is a flag's value.
type Output string

// The forms. Names is for lists: one name a line. Formatted is by --format's template, and chosen by giving one.
const (
	Table     Output = "table"
	JSON      Output = "json"
	Names     Output = "name"
	Formatted Output = "format"
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

// Data reports whether results are wanted as data, and nothing but them.
func (a *App) Data() bool { return a.Output == JSON || a.Output == Formatted }

// Print prints a result that is wanted as data.
func (a *App) Print(v any) error {
	if a.Output == Formatted {
		return a.Format.Write(a.IO.Out, v)
	}
	return term.JSON(a.IO.Out, v)
}

// PrintLine is Print for one of a stream: JSON comes on a line of its own.
func (a *App) PrintLine(v any) error {
	if a.Output == Formatted {
		return a.Format.Write(a.IO.Out, v)
	}
	return term.JSONLine(a.IO.Out, v)
}
