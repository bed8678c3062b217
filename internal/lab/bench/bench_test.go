package bench

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/snapshot"
)

func TestVerified(t *testing.T) {
	golden := t.TempDir()
	for _, c := range []struct {
		manifest string
		want     bool
		fails    bool
	}{
		{`{"memory_sha256": "5f"}`, true, false},
		{`{"schema": 1}`, false, false},
		{`{`, false, true},
	} {
		dir := filepath.Join(golden, "ab")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, snapshot.FileManifest), []byte(c.manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := verified(golden); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v", c.manifest, got, err)
		}
	}
}
