package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"banger/internal/fault"
)

// decode reads TOML strictly into a struct, over what it holds already.
//
// It is read twice: first into a struct of the same keys in which whatever is written as text is a
// string. The decoder would take a bare number for a Size or a Duration to be bytes or nanoseconds.
func decode(path string, text []byte, into any) error {
	err := strict(text, reflect.New(plain(reflect.TypeOf(into).Elem())).Interface())
	if err == nil {
		err = strict(text, into)
	}
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
		return bad("line %d: there is no key %q", row, name).WithHint("%s", advice(name, keysOf(reflect.TypeOf(into).Elem(), "")))
	}
	const seeDocs = "see docs/configuration.md for each key's type"
	e, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		return bad("%w", err).WithHint(seeDocs)
	}
	row, _ := e.Position()
	name := strings.Join(e.Key(), ".")
	if want := wanted(reflect.TypeOf(into).Elem(), name); strings.Contains(e.Error(), "cannot decode") && want != "" {
		return bad("line %d: %s must be %s", row, name, want).WithHint(seeDocs)
	}
	return bad("line %d: %s", row, strings.TrimPrefix(e.Error(), "toml: ")).WithHint(seeDocs)
}

func strict(text []byte, into any) error {
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// plain derives the struct type whose fields that are written as text are strings.
func plain(t reflect.Type) reflect.Type {
	fields := make([]reflect.StructField, t.NumField())
	for i := range fields {
		f := t.Field(i)
		switch {
		case isText(f.Type):
			f.Type = reflect.TypeFor[string]()
		case f.Type.Kind() == reflect.Struct:
			f.Type = plain(f.Type)
		case f.Type.Kind() == reflect.Map:
			f.Type = reflect.MapOf(f.Type.Key(), plain(f.Type.Elem()))
		}
		fields[i] = reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag}
	}
	return reflect.StructOf(fields)
}

func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// wanted says how the value of a key is written; "" for a key that is none.
func wanted(t reflect.Type, name string) string {
	first, rest, _ := strings.Cut(name, ".")
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Tag.Get("toml") != first:
		case isText(f.Type):
			return "text in quotes"
		case f.Type.Kind() == reflect.Map:
			if _, key, ok := strings.Cut(rest, "."); ok {
				return wanted(f.Type.Elem(), key)
			}
			return "a table"
		case f.Type.Kind() == reflect.Struct && rest == "":
			return "a table"
		case f.Type.Kind() == reflect.Struct:
			return wanted(f.Type, rest)
		case f.Type.Kind() == reflect.Float64:
			return "a number"
		default:
			return "a whole number"
		}
	}
	return ""
}

// keysOf lists the dotted keys of a configuration struct.
func keysOf(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("toml")
		if f.Type.Kind() == reflect.Struct && !isText(f.Type) {
			out = append(out, keysOf(f.Type, name+".")...)
			continue
		}
		if f.Type.Kind() == reflect.Map {
			out = append(out, keysOf(f.Type.Elem(), name+".UID.")...)
			continue
		}
		out = append(out, name)
	}
	return out
}

// tables lists the tables that dotted keys are in.
func tables(keys []string) []string {
	var out []string
	for _, k := range keys {
		if table, _, ok := strings.Cut(k, "."); ok && !slices.Contains(out, table) {
			out = append(out, table)
		}
	}
	return out
}

// advice is for one who wrote a key that is none of keys.
func advice(name string, keys []string) string {
	everywhere, own := keysOf(reflect.TypeFor[File](), ""), keysOf(reflect.TypeFor[User](), "")
	switch {
	case slices.Contains(append(own, tables(own)...), name):
		return "a checkout may not choose it: put it into " + userFile()
	case slices.Contains(append(everywhere, tables(everywhere)...), name):
		return "only the daemon goes by it: put it into " + SystemFile
	}
	if near := nearest(name, append(tables(keys), keys...)); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "the keys here are " + strings.Join(keys, ", ")
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
