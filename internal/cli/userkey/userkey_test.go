package userkey_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/internal/cli/userkey"
	"banger/internal/fault"
)

func TestEnsureRaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "banger", "id_ed25519")
	keys := make([]userkey.Key, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = userkey.Ensure(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] || !strings.HasPrefix(k.Public, "ssh-ed25519 ") || !strings.HasSuffix(k.Public, " banger") {
			t.Fatalf("keys differ: %v", keys)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEnsureRefusesRubbish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id_ed25519")
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := userkey.Ensure(path); !fault.Is(err, fault.Corrupt) {
		t.Errorf("err = %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	made, err := userkey.Ensure(filepath.Join(dir, "made"))
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "mine")
	if _, err := userkey.Load(mine); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Hint, "ssh-keygen -y") {
		t.Errorf("err = %v", err)
	}
	if err := os.WriteFile(mine+".pub", []byte("# note\n"+made.Public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := userkey.Load(mine)
	if err != nil || got.Public != made.Public || got.Path != mine {
		t.Errorf("Load = %+v, %v", got, err)
	}
	if !got.In([]string{"garbage", strings.TrimSuffix(made.Public, " banger") + " elsewhere"}) {
		t.Error("the key is not recognised under another comment")
	}
	if got.In([]string{"garbage"}) || got.In(nil) {
		t.Error("the key is found where it is not")
	}
}
