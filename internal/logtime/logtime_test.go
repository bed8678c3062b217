package logtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/logtime"
)

func TestOffset(t *testing.T) {
	for name, c := range map[string]struct {
		notes string
		since int64
		want  int64
	}{
		"from the beginning":      {"100 0\n200 50\n", 10, 0},
		"the note itself":         {"100 0\n200 50\n", 200, 50},
		"within the precision":    {"100 0\n200 50\n", 201, 50},
		"between two":             {"100 0\n200 50\n", 150, 50},
		"after the last":          {"100 0\n200 50\n", 300, 1000},
		"none":                    {"", 300, 1000},
		"half a line":             {"100 0\n20\n300 70\n", 250, 70},
		"a lie":                   {"100 0\n200 50\n210 20\n300 70\n", 205, 70},
		"a log that was cut":      {"100 0\n200 5000\n", 150, 1000},
		"no room for later notes": {"1 0\n" + strings.Repeat("200 50\n", 20000), 300, 50},
	} {
		log := filepath.Join(t.TempDir(), "console.log")
		if err := os.WriteFile(log+".times", []byte(c.notes), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := logtime.Offset(log, 1000, time.Unix(c.since, 0)); err != nil || got != c.want {
			t.Errorf("%s: %d, %v, want %d", name, got, err, c.want)
		}
	}
	if got, err := logtime.Offset(filepath.Join(t.TempDir(), "none"), 1000, time.Unix(100, 0)); err != nil || got != 0 {
		t.Errorf("without notes: %d, %v", got, err)
	}
}

func TestNotes(t *testing.T) {
	log := filepath.Join(t.TempDir(), "console.log")
	var n logtime.Notes
	before := time.Now()
	for offset := range int64(3) { // within a moment: one note
		if err := n.Grows(log, 7+offset); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(log + ".times")
	var at, offset int64
	if _, scan := fmt.Sscanf(string(text), "%d %d\n", &at, &offset); err != nil || scan != nil || offset != 7 || at < before.Unix() || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%q, %v", text, err)
	}
	for range 2 { // the second time there is nothing to put aside
		if err := n.PutAside(log, log+".1"); err != nil {
			t.Fatal(err)
		}
		if err := n.Grows(log+".other", 0); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(log + "*"); err != nil || len(left) != 1 || left[0] != log+".other.times" {
		t.Errorf("left is %q, %v", left, err)
	}
}
