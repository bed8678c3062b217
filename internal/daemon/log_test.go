package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestTheLogIsPutAside holds that it is bounded while the daemon runs, and that no line is lost or torn.
func TestTheLogIsPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bangerd.log")
	if err := os.WriteFile(path, []byte("of an earlier daemon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &logFile{path: path, most: 30}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	holds := func(older, newer string) {
		t.Helper()
		for name, want := range map[string]string{path + ".1": older, path: newer} {
			if got, err := os.ReadFile(name); err != nil && want != "" || string(got) != want {
				t.Errorf("%s holds %q, %v, want %q", filepath.Base(name), got, err, want)
			}
		}
	}
	write := func(line string) {
		t.Helper()
		if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	write("one\n")
	holds("", "of an earlier daemon\none\n")
	write("two and more\n")
	holds("of an earlier daemon\none\n", "two and more\n")
	write("three, which is longer than all of it may be\n") // a line is never torn
	holds("two and more\n", "three, which is longer than all of it may be\n")
	write("four\n")
	holds("three, which is longer than all of it may be\n", "four\n")

	// One that was removed by hand begins anew.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write("five, so that there is too much\n")
	holds("three, which is longer than all of it may be\n", "five, so that there is too much\n")

	// Where nothing can be put aside it goes on as it is.
	if err := errors.Join(os.Remove(path+".1"), os.Mkdir(path+".1", 0o700)); err != nil {
		t.Fatal(err)
	}
	write("six\n")
	if got, err := os.ReadFile(path); err != nil || string(got) != "five, so that there is too much\nsix\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := l.f.Close(); err != nil {
		t.Fatal(err)
	}
}
