package daemonstart_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"banger/internal/cli/daemonstart"
	"banger/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon puts a script named bangerd on PATH.
func daemon(t *testing.T, script string) (logPath string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "bangerd"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return filepath.Join(t.TempDir(), "state", "bangerd.out")
}

func never(context.Context) error { return errors.New("not there") }

func TestStartWaitsUntilReady(t *testing.T) {
	up := filepath.Join(t.TempDir(), "up")
	logPath := daemon(t, `test "$BANGER_SOCKET" = /d.sock && touch `+up)
	err := daemonstart.Start(t.Context(), "/d.sock", logPath, func(context.Context) error {
		_, err := os.Stat(up)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStartTellsWhatADyingDaemonSaid(t *testing.T) {
	logPath := daemon(t, "echo no KVM here; exit 9")
	if err := os.MkdirAll(filepath.Dir(logPath), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(logPath, []byte("an older run\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fault.From(daemonstart.Start(t.Context(), "/d.sock", logPath, never))
	if f.Code != fault.Unavailable || f.Msg != "it ended: exit status 9" || f.Detail != "no KVM here" || f.Logs[0] != logPath {
		t.Errorf("%+v", f)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	logPath := daemon(t, "read nothing")
	err := daemonstart.Start(ctx, "/d.sock", logPath, func(context.Context) error { cancel(); return errors.New("no") })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestStartWithoutADaemon(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := daemonstart.Start(t.Context(), "/d.sock", filepath.Join(t.TempDir(), "log"), never)
	if !fault.Is(err, fault.Requirement) || !strings.Contains(err.Error(), "neither beside this command nor on PATH") {
		t.Errorf("err = %v", err)
	}
}
