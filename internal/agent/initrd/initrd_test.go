package initrd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFindInit(t *testing.T) {
	dir := t.TempDir()
	good, plain := filepath.Join(dir, "init"), filepath.Join(dir, "plain")
	for path, mode := range map[string]os.FileMode{good: 0o755, plain: 0o644} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if argv, err := findInit([]string{good, "--quiet"}); err != nil || strings.Join(argv, " ") != good+" --quiet" {
		t.Errorf("got %q, %v", argv, err)
	}
	for _, bad := range []string{plain, dir, filepath.Join(dir, "none")} {
		_, err := findInit([]string{bad})
		if want := "the root file system has no init; looked for " + bad; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLoadModulesNamesTheModule(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "modules")
	if err := loadModules(list); err != nil {
		t.Errorf("without a list: %v", err)
	}
	if err := os.WriteFile(list, []byte("/lib/modules/none.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadModules(list); err == nil || !strings.HasPrefix(err.Error(), "load /lib/modules/none.ko: ") {
		t.Errorf("got %v", err)
	}
}

func TestAwaitFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vda")
	time.AfterFunc(20*time.Millisecond, func() { _ = os.WriteFile(path, nil, 0o600) }) // its absence fails the test
	if err := awaitFile(t.Context(), path); err != nil {
		t.Error(err)
	}
}

func TestStageError(t *testing.T) {
	cause := errors.New("no disk")
	err := at("disks", cause)
	if err.Error() != "disks: no disk" || !errors.Is(err, cause) || at("disks", nil) != nil {
		t.Errorf("got %v", err)
	}
}
