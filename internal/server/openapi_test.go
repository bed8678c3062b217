package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/server"
)

// TestOpenAPI holds docs/openapi.json to the code.
func TestOpenAPI(t *testing.T) {
	got, err := server.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	const path = "../../docs/openapi.json"
	if os.Getenv("BANGER_GENERATE") != "" {
		if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pretty.Bytes(), want) {
		t.Errorf("%s is not what the code serves: run `make generate` and look at the difference", path)
	}
}

// TestTheServedDescription holds that a daemon describes itself as the documentation does.
func TestTheServedDescription(t *testing.T) {
	w := newWorld(t)
	answer := drainText(t, w.raw("GET /v1/openapi.json HTTP/1.0\r\n\r\n"))
	_, body, _ := strings.Cut(answer, "\r\n\r\n")
	documented, err := server.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := errors.Join(json.Unmarshal([]byte(body), &got), json.Unmarshal(documented, &want)); err != nil {
		t.Fatal(err)
	}
	delete(got, "info") // has the build's version
	delete(want, "info")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
