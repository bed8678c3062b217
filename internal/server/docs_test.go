package server_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/api"
	"banger/internal/cli/exit"
	"banger/internal/fault"
)

func documentation(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTheTableOfFaults holds docs/api.md to the two tables of the code, and each code to one meaning.
func TestTheTableOfFaults(t *testing.T) {
	type row struct{ HTTP, Exit, Meaning string }
	meanings := map[string]string{}
	for line := range strings.Lines(exit.Help()) {
		if f := strings.Fields(line); len(f) > 2 {
			meanings[f[1]] = strings.Join(f[2:], " ")
		}
	}
	want := map[string]row{}
	for _, code := range fault.Codes() {
		err := fault.New(code, "x")
		want[string(code)] = row{fmt.Sprint(api.HTTPStatus(code)), fmt.Sprint(exit.Of(err)), meanings[string(code)]}
	}
	got := map[string]row{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d+) \\| (\\d+) \\| (.*) \\|$").FindAllStringSubmatch(documentation(t), -1) {
		got[m[1]] = row{m[2], m[3], m[4]}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTheDocumentedRoutes asks for every route in docs/api.md; none may be one that there is not.
func TestTheDocumentedRoutes(t *testing.T) {
	text := documentation(t)
	w := newWorld(t)
	w.verbs.fail(fault.New(fault.Unavailable, "not now"))
	var requests []string
	for _, m := range regexp.MustCompile("`(GET|POST) (/v1/[^` ]+)`").FindAllStringSubmatch(text, -1) {
		requests = append(requests, m[1]+" "+m[2])
	}
	for _, m := range regexp.MustCompile(`(?m)^\$ curl .*$`).FindAllString(text, -1) {
		method := "GET"
		if strings.Contains(m, "--json") || strings.Contains(m, "-X POST") {
			method = "POST"
		} else if strings.Contains(m, "-X DELETE") {
			method = "DELETE"
		}
		requests = append(requests, method+" "+regexp.MustCompile(`/v1/[^' ]+`).FindString(m))
	}
	if len(requests) < 15 {
		t.Fatalf("only %q are documented", requests)
	}
	for _, request := range requests {
		answer := drainText(t, w.raw(request+" HTTP/1.0\r\nContent-Length: 0\r\n\r\n"))
		if strings.Contains(answer, "there is no ") {
			t.Errorf("%s: %s", request, answer)
		}
	}
}
