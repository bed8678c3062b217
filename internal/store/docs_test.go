package store_test

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"banger/internal/image"
	"banger/internal/vm"
)

// TestEveryFieldIsDocumented holds docs/files.md to the fields of the files that outlive a build.
func TestEveryFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/files.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(fields(reflect.TypeFor[vm.VM](), "vm."), fields(reflect.TypeFor[image.Manifest](), "")...) {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/files.md does not tell what `%s` is", name)
		}
	}
}

// fields lists the dotted JSON names of a struct. Those of a list's elements follow the list's name.
func fields(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner := f.Type
		if k := inner.Kind(); k == reflect.Pointer || k == reflect.Slice {
			inner = inner.Elem()
		}
		opaque := inner == reflect.TypeFor[time.Time]() || strings.HasPrefix(inner.PkgPath(), "net/")
		if inner.Kind() == reflect.Struct && !opaque {
			if !f.Anonymous {
				name += "."
			}
			out = append(out, fields(inner, prefix+name)...)
			continue
		}
		out = append(out, prefix+name)
	}
	return out
}
