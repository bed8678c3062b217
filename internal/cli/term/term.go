// Package term is how banger looks on a terminal and in a pipe: streams, colours, tables, sizes and
// times, live stages, and the escaping of text that others wrote.
package term

import (
	"io"
	"os"

	"golang.org/x/term"
)

// IO holds a command's streams and what is known about them.
type IO struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer

	InTTY  bool
	OutTTY bool
	ErrTTY bool
	Dumb   bool // the terminal cannot move its cursor
	Color  bool // colours are wanted wherever there is a terminal

	Size func() (columns, rows int) // of the terminal behind Err; 80 by 24 when there is none
}

// System returns the process's own streams. Colours follow NO_COLOR and TERM.
func System(getenv func(string) string) *IO {
	tty := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	dumb := getenv("TERM") == "dumb" || getenv("TERM") == ""
	return &IO{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTTY: tty(os.Stdin), OutTTY: tty(os.Stdout), ErrTTY: tty(os.Stderr),
		Dumb:  dumb,
		Color: !dumb && getenv("NO_COLOR") == "",
		Size: func() (int, int) {
			if w, h, err := term.GetSize(int(os.Stderr.Fd())); err == nil && w > 0 && h > 0 {
				return w, h
			}
			return 80, 24
		},
	}
}

// OutPalette is the palette for Out.
func (s *IO) OutPalette() Palette { return Palette{on: s.Color && s.OutTTY} }

// ErrPalette is the palette for Err.
func (s *IO) ErrPalette() Palette { return Palette{on: s.Color && s.ErrTTY} }

// Palette colours text, or leaves it alone where colours are not wanted. Only the terminal's own
// first colours are used: they suit light and dark themes alike.
type Palette struct{ on bool }

// Bold makes text stand out.
func (p Palette) Bold(s string) string { return p.sgr("1", s) }

// Dim makes text step back.
func (p Palette) Dim(s string) string { return p.sgr("2", s) }

// Red marks a failure.
func (p Palette) Red(s string) string { return p.sgr("31", s) }

// Green marks a success.
func (p Palette) Green(s string) string { return p.sgr("32", s) }

// Yellow marks a warning.
func (p Palette) Yellow(s string) string { return p.sgr("33", s) }

// Cyan marks something in motion, or something to type.
func (p Palette) Cyan(s string) string { return p.sgr("36", s) }

func (p Palette) sgr(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
