package format_test

import (
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/cli/format"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/vm"
)

func machines() []api.VM {
	return []api.VM{
		{Name: "dev", State: vm.Running, PID: 42, Labels: map[string]string{"team/x": "a"}, Keys: []string{"k1", "k2"}, Spec: vm.Spec{Memory: 3 * vm.GiB}, Started: time.Unix(0, 0).UTC()},
		{Name: "old", State: vm.Crashed, Reason: "said \x1b[2J"},
	}
}

func TestWrite(t *testing.T) {
	failed := op.Operation{ID: "op-1", Error: fault.New(fault.Timeout, "late")}
	for _, tc := range []struct {
		format string
		of     any
		want   string
	}{
		{`{{.name}}\t{{.state}}`, machines(), "dev\trunning\nold\tcrashed\n"},
		{"{{.name}}", machines()[0], "dev\n"},
		{`a\n{{join "\t" .authorized_keys}}\t{{"}"}}`, machines()[0], "a\nk1\tk2\t}\n"},
		{"{{.pid}} {{.started}}", machines(), "42 1970-01-01T00:00:00Z\n0 \n"}, // what JSON leaves out is empty
		{"{{.spec.memory}} {{size .spec.memory}}", machines()[0], "3221225472 3 GiB\n"},
		{`{{index .labels "team/x"}}.`, machines(), "a.\n.\n"},
		{`{{join "," .authorized_keys}}`, machines(), "k1,k2\n\n"},
		{"{{json .spec.vcpu}} {{json .labels}}", machines()[0], "0 {\"team/x\":\"a\"}\n"},
		{"{{.reason}}", machines()[1], "said \\x1b[2J\n"},
		{"{{.id}} {{with .error}}{{.code}}{{end}}", []op.Operation{failed, {ID: "op-2"}}, "op-1 timeout\nop-2 \n"},
		{"{{.name}} {{.expires}}", []api.Trashed{{VM: machines()[0]}}, "dev 0001-01-01T00:00:00Z\n"}, // an embedded noun
		{"{{.name}}", []api.VM{}, ""},
		{"{{.logs.console}}|", machines()[0], "|\n"},
	} {
		var f format.Template
		if err := f.Set(tc.format); err != nil {
			t.Error(err)
			continue
		}
		var out strings.Builder
		if err := f.Write(&out, tc.of); err != nil || out.String() != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.format, out.String(), err, tc.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct{ format, want, hint string }{
		{"", `read --format: it is no template: it is empty`, "{{.name}}"},
		{"{{.name", `read --format "{{.name": it is no template: format:1: unclosed action`, "{{.name}}"},
		{"{{nope .name}}", `read --format "{{nope .name}}": it is no template: format:1: function "nope" not defined`, "{{.name}}"},
		{"{{.Name}}", `read --format "{{.Name}}": map has no entry for key "Name"`, "there is check, count, name; -o json shows all of it"},
		{"{{.check.grade}}", `read --format "{{.check.grade}}": map has no entry for key "grade"`, "there is check"},
		{"{{size .name}}", `read --format "{{size .name}}": wrong type for value; expected json.Number; got string`, "there is check"},
	} {
		var f format.Template
		err := f.Set(tc.format)
		if err == nil {
			err = f.Write(new(strings.Builder), struct {
				Name  string         `json:"name"`
				Count map[string]int `json:"count"`
				Check struct {
					Result string `json:"result"`
				} `json:"check"`
			}{Name: "dev"})
		}
		got := fault.From(err)
		if err == nil || got.Error() != tc.want || got.Code != fault.Invalid || !strings.Contains(got.Hint, tc.hint) {
			t.Errorf("%s: %v, hint %q", tc.format, err, got.Hint)
		}
	}
}

// TestEveryNoun holds that each field of what is printed can be asked for, also where there is nothing in it.
func TestEveryNoun(t *testing.T) {
	for _, noun := range []any{
		api.VM{}, api.Trashed{}, api.Image{}, api.Status{}, api.Ping{}, api.Check{}, op.Operation{}, event.Event{}, vm.Stats{}, []api.VM{{}},
	} {
		var f format.Template
		if err := f.Set("{{range $field, $value := .}}{{$field}}={{json $value}}\\n{{end}}"); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := f.Write(&out, noun); err != nil {
			t.Errorf("%T: %v", noun, err)
		}
		if strings.Contains(out.String(), "null") {
			t.Errorf("%T: something is null:\n%s", noun, out.String())
		}
	}
}
