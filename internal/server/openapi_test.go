package server_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

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
