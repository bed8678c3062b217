package scripts

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// jsonIs compares a value in the last command's output: json vms.0.state running. The path "." is the
// whole document, and a VALUE that is no JSON is a string. In an array, a number stands for an element and
// "len" for its length.
func jsonIs(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] json PATH VALUE")
	}
	got, err := query(ts.ReadFile("stdout"), args[0])
	if err != nil && !neg {
		ts.Fatalf("%v", err)
	}
	if equal := err == nil && same(got, args[1]); equal == neg {
		ts.Fatalf("%s is %s", args[0], text(got))
	}
}

// jsonEnv takes a value from the last command's output into the environment: json-env pid PID.
func jsonEnv(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: json-env PATH NAME")
	}
	got, err := query(ts.ReadFile("stdout"), args[0])
	ts.Check(err)
	ts.Setenv(args[1], text(got))
}

// waitJSON runs a command until a value in its output is as wanted:
//
//	wait-json state crashed banger vm show dev -o json
func waitJSON(ctx context.Context, ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 || neg {
		ts.Fatalf("usage: wait-json PATH VALUE COMMAND [ARG...]")
	}
	var got any
	err := until(ctx, waitDefault, func() bool {
		err := ts.Exec(args[2], args[3:]...)
		if err == nil {
			got, err = query(ts.ReadFile("stdout"), args[0])
		}
		return err == nil && same(got, args[1])
	})
	if err != nil {
		ts.Fatalf("%s is still %s after %s", args[0], text(got), waitDefault)
	}
}

// query finds a value in a document. Numbers keep their digits.
func query(document, path string) (any, error) {
	v, err := decode(document)
	if err != nil {
		return nil, fmt.Errorf("the last output is not JSON: %w", err)
	}
	if path == "." {
		return v, nil
	}
	for step := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			inner, ok := at[step]
			if !ok {
				return nil, fmt.Errorf("%s: there is no %q in %s", path, step, text(at))
			}
			v = inner
		case []any:
			if step == "len" {
				v = json.Number(strconv.Itoa(len(at)))
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				return nil, fmt.Errorf("%s: there is no element %s among %d", path, step, len(at))
			}
			v = at[i]
		default:
			return nil, fmt.Errorf("%s: %s has nothing in it", path, text(at))
		}
	}
	return v, nil
}

func decode(s string) (any, error) {
	var v any
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	return v, d.Decode(&v)
}

func same(got any, want string) bool {
	if s, ok := got.(string); ok && s == want {
		return true
	}
	v, err := decode(want)
	return err == nil && reflect.DeepEqual(got, v)
}

// text is a string as it is, and anything else as JSON.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
