// Package format prints results through a template that the user gives. It sees what -o json prints:
// the same objects, with the same names.
package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/template"

	"banger/internal/cli/term"
	"banger/internal/fault"
	"banger/internal/vm"
)

// Template is a flag's value: a template of Go's text/template. Its zero value prints nothing.
type Template struct {
	text string
	tmpl *template.Template
}

// Given reports whether there is one.
func (t *Template) Given() bool { return t.tmpl != nil }

// String implements pflag.Value.
func (t *Template) String() string { return t.text }

// Type implements pflag.Value; it is what help shows.
func (t *Template) Type() string { return "TEMPLATE" }

// Set implements pflag.Value. A backslash with t or n is a tab or a new line, also outside of actions: a shell's quotes
// leave them as they are.
func (t *Template) Set(text string) error {
	parsed, err := template.New("format").Option("missingkey=error").Funcs(functions()).
		Parse(unescape(text))
	if err == nil && text == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fault.New(fault.Invalid, "it is no template: %s", reason(err)).WithOp("read --format", text).
			WithHint("write a template such as '{{.name}} {{.state}}'; -o json shows which fields there are")
	}
	t.text, t.tmpl = text, parsed
	return nil
}

// unescape replaces \t and \n outside of actions: within them they are Go's.
func unescape(text string) string {
	outside := strings.NewReplacer(`\t`, "\t", `\n`, "\n")
	var b strings.Builder
	for text != "" {
		before, rest, action := strings.Cut(text, "{{")
		b.WriteString(outside.Replace(before))
		if !action {
			break
		}
		inside, after, ended := strings.Cut(rest, "}}")
		b.WriteString("{{" + inside)
		if ended {
			b.WriteString("}}")
		}
		text = after
	}
	return b.String()
}

func functions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			text, err := json.Marshal(v)
			return string(text), err
		},
		"join": func(sep string, all []any) string {
			words := make([]string, len(all))
			for i, w := range all {
				words[i] = fmt.Sprint(w)
			}
			return strings.Join(words, sep)
		},
		"size": func(n json.Number) (string, error) {
			bytes, err := n.Int64()
			return vm.FormatSize(bytes), err
		},
	}
}

// Write prints v, or each of a list, and a new line after it. What others wrote is escaped, as in a table.
func (t *Template) Write(w io.Writer, v any) error {
	seen, err := view(v)
	if err != nil {
		return err
	}
	all, list := seen.([]any)
	if !list {
		all = []any{seen}
	}
	var out bytes.Buffer
	for _, one := range all {
		if err := t.tmpl.Execute(&out, one); err != nil {
			return t.refused(err, one)
		}
		out.WriteByte('\n')
	}
	_, err = io.WriteString(w, term.EscapeLines(out.String()))
	return err
}

// refused says what can be asked of an object that was asked for something else.
func (t *Template) refused(err error, of any) error {
	f := fault.New(fault.Invalid, "%s", reason(err)).WithOp("read --format", t.text)
	fields, ok := of.(map[string]any)
	if !ok {
		return f.WithHint("-o json shows what there is")
	}
	return f.WithHint("there is %s; -o json shows all of it", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
}

// reason is an error of text/template without where in its own words it happened.
func reason(err error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, ">: "); ok {
		return after
	}
	return strings.TrimPrefix(text, "template: ")
}

// view is v as JSON has it, and what JSON leaves out because it is empty, so that a field which one of many VMs
// lacks is empty, and one that none can have is a mistake.
func view(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // a size is no floating-point number
	var out any
	if err := dec.Decode(&out); err != nil {
		return nil, err
	}
	return fill(out, reflect.TypeOf(v)), nil
}

// fill adds to decoded JSON the fields that its type has and it lacks.
func fill(v any, t reflect.Type) any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch got := v.(type) {
	case []any:
		for i := range got {
			if t.Kind() == reflect.Slice {
				got[i] = fill(got[i], t.Elem())
			}
		}
	case map[string]any:
		if t.Kind() == reflect.Map {
			return fillMap(got, t.Elem())
		}
		if t.Kind() == reflect.Struct {
			fillStruct(got, t)
		}
	}
	return v
}

// fillMap keeps what the map's values are, so that `index` has an empty one for a key that is not there.
func fillMap(m map[string]any, elem reflect.Type) any {
	if elem.Kind() == reflect.String {
		words := make(map[string]string, len(m))
		for k, v := range m {
			words[k], _ = v.(string)
		}
		return words
	}
	for k := range m {
		m[k] = fill(m[k], elem)
	}
	return m
}

func fillStruct(m map[string]any, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			fillStruct(m, f.Type)
			continue
		case name == "-" || !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		if v, ok := m[name]; ok && v != nil {
			m[name] = fill(v, f.Type)
		} else {
			m[name] = empty(f.Type)
		}
	}
}

// empty stands for what JSON leaves out. An object that may be absent is, and not full of empty fields.
func empty(t reflect.Type) any {
	switch t.Kind() {
	case reflect.Bool:
		return false
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return json.Number("0")
	case reflect.Slice:
		return []any{}
	case reflect.Map:
		return fillMap(map[string]any{}, t.Elem())
	case reflect.Struct:
		if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]()) { // time.Time
			return ""
		}
		m := map[string]any{}
		fillStruct(m, t)
		return m
	default:
		return ""
	}
}
