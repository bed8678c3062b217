package config

import (
	"bytes"
	"errors"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"banger/internal/fault"
)

// decode reads TOML strictly into a struct, over what it holds already.
func decode(path string, text []byte, into any) error {
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		return nil
	}
	bad := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, format, args...).WithOp("read configuration", path)
	}
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(unknown.Errors) > 0 {
		e := unknown.Errors[0]
		row, _ := e.Position()
		name := strings.Join(e.Key(), ".")
		f := bad("line %d: there is no key %q", row, name)
		if near := nearest(name, keysOf(reflect.TypeOf(into).Elem(), "")); near != "" {
			return f.WithHint("did you mean %q?", near)
		}
		return f.WithHint("the keys here are %s", strings.Join(keysOf(reflect.TypeOf(into).Elem(), ""), ", "))
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, col := e.Position()
		return bad("line %d, column %d: %s", row, col, strings.TrimPrefix(e.Error(), "toml: ")).
			WithHint("see docs/configuration.md for each key's type")
	}
	return bad("%w", err).WithHint("see docs/configuration.md for each key's type")
}

// keysOf lists the dotted keys of a configuration struct.
func keysOf(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("toml")
		if f.Type.Kind() == reflect.Struct {
			out = append(out, keysOf(f.Type, name+".")...)
			continue
		}
		out = append(out, name)
	}
	return out
}

// nearest returns the key most like name, or "" when none is like it.
func nearest(name string, keys []string) string {
	best, limit := "", len(name)/2+1
	for _, k := range keys {
		if d := distance(name, k); d < limit {
			best, limit = k, d
		}
	}
	return best
}

// distance is the number of insertions, deletions and replacements from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
