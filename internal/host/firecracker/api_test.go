package firecracker

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The API description is Firecracker's own, of the oldest release that is supported; NOTICE beside
// it has its licence.
const description = "testdata/firecracker-1.12.1.yaml"

type schema struct {
	Type       string            `yaml:"type"`
	Ref        string            `yaml:"$ref"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Items      *schema           `yaml:"items"`
	Enum       []string          `yaml:"enum"`
}

type swagger struct {
	Paths map[string]map[string]struct {
		Responses map[string]struct {
			Schema schema `yaml:"schema"`
		} `yaml:"responses"`
	} `yaml:"paths"`
	Definitions map[string]schema `yaml:"definitions"`
}

func load(t *testing.T) swagger {
	t.Helper()
	text, err := os.ReadFile(description)
	if err != nil {
		t.Fatal(err)
	}
	var s swagger
	if err := yaml.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// enums lists every value of ours that the description restricts.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[cacheType]():     {string(writeback)},
	reflect.TypeFor[ioEngine]():      {string(syncEngine)},
	reflect.TypeFor[instanceState](): {string(running), string(paused)},
	reflect.TypeFor[snapshotType]():  {string(full)},
	reflect.TypeFor[backendType]():   {string(fileBackend)},
	reflect.TypeFor[vmState]():       {string(statePaused), string(stateResumed)},
}

// TestTypesAgreeWithTheDescription compares each type that is sent or received with Firecracker's
// own description of it.
func TestTypesAgreeWithTheDescription(t *testing.T) {
	s := load(t)
	s.compare(t, "FullVmConfiguration", schema{Ref: "#/definitions/FullVmConfiguration"}, reflect.TypeFor[config](), true)
	get := s.Paths["/"]["get"].Responses
	s.compare(t, "GET / 200", get["200"].Schema, reflect.TypeFor[instanceInfo](), false)
	s.compare(t, "PATCH /vm", schema{Ref: "#/definitions/Vm"}, reflect.TypeFor[vmUpdate](), true)
	s.compare(t, "PATCH /balloon", schema{Ref: "#/definitions/BalloonUpdate"}, reflect.TypeFor[balloonUpdate](), true)
	s.compare(t, "PATCH /drives", schema{Ref: "#/definitions/PartialDrive"}, reflect.TypeFor[driveUpdate](), true)
	s.compare(t, "PUT /snapshot/create", schema{Ref: "#/definitions/SnapshotCreateParams"}, reflect.TypeFor[snapshotCreate](), true)
	s.compare(t, "PUT /snapshot/load", schema{Ref: "#/definitions/SnapshotLoadParams"}, reflect.TypeFor[snapshotLoad](), true)
	s.compare(t, "GET / default", get["default"].Schema, reflect.TypeFor[apiError](), false)
}

// TestComparisonSeesMistakes makes sure that the test above can fail.
func TestComparisonSeesMistakes(t *testing.T) {
	s := load(t)
	ref := schema{Ref: "#/definitions/Drive"}
	for name, wrong := range map[string]reflect.Type{
		"unknown field": reflect.TypeFor[struct {
			DriveID string `json:"drive_id"`
			Root    bool   `json:"is_root_device"`
			Cache   string `json:"cache"`
		}](),
		"wrong type": reflect.TypeFor[struct {
			DriveID string `json:"drive_id"`
			Root    string `json:"is_root_device"`
		}](),
		"required field missing": reflect.TypeFor[struct {
			DriveID string `json:"drive_id"`
		}](),
		"required field may be left out": reflect.TypeFor[struct {
			DriveID string `json:"drive_id,omitempty"`
			Root    bool   `json:"is_root_device"`
		}](),
		"enumeration of unknown values": reflect.TypeFor[struct {
			DriveID string `json:"drive_id"`
			Root    bool   `json:"is_root_device"`
			Cache   string `json:"cache_type"`
		}](),
	} {
		if len(s.differences(name, ref, wrong, true)) == 0 {
			t.Errorf("%s: not seen", name)
		}
	}
}

func (s swagger) compare(t *testing.T, at string, def schema, typ reflect.Type, sent bool) {
	t.Helper()
	for _, d := range s.differences(at, def, typ, sent) {
		t.Error(d)
	}
}

// differences walks both trees. sent asks that required properties are always there.
func (s swagger) differences(at string, def schema, typ reflect.Type, sent bool) (found []string) {
	if def.Ref != "" {
		name := strings.TrimPrefix(def.Ref, "#/definitions/")
		target, ok := s.Definitions[name]
		if !ok {
			return []string{at + ": the description has no definition " + name}
		}
		def = target
	}
	kinds := map[string][]reflect.Kind{
		"object": {reflect.Struct}, "array": {reflect.Slice}, "string": {reflect.String}, "boolean": {reflect.Bool},
		"integer": {reflect.Int, reflect.Int64, reflect.Uint32},
	}
	if !slices.Contains(kinds[def.Type], typ.Kind()) {
		return []string{at + ": it is described as " + def.Type + ", ours is a " + typ.Kind().String()}
	}
	for _, value := range enums[typ] {
		if !slices.Contains(def.Enum, value) {
			found = append(found, at+": the description does not allow "+value)
		}
	}
	if len(def.Enum) > 0 && len(enums[typ]) == 0 {
		found = append(found, at+": it is an enumeration, ours has no values to check")
	}
	if typ.Kind() == reflect.Slice {
		found = append(found, s.differences(at+"[]", *def.Items, typ.Elem(), sent)...)
	}
	if typ.Kind() == reflect.Struct {
		required := map[string]bool{}
		for i := range typ.NumField() {
			name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			property, ok := def.Properties[name]
			if !ok {
				found = append(found, at+": the description has no property "+name)
				continue
			}
			required[name] = options == ""
			found = append(found, s.differences(at+"."+name, property, typ.Field(i).Type, sent)...)
		}
		for _, name := range def.Required {
			if sent && !required[name] {
				found = append(found, at+": the required property "+name+" is missing or may be left out")
			}
		}
	}
	return found
}
