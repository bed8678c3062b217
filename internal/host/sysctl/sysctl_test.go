package sysctl_test

import (
	"errors"
	"io/fs"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/host/sysctl"
)

func TestGetAndSet(t *testing.T) {
	done := make(chan struct{})
	go func() { // its thread is never unlocked, so nothing else ever runs in the namespace
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace (the test needs root): %v", err)
			return
		}
		for _, want := range []string{"1", "0"} {
			if err := sysctl.Set("net/ipv4/ip_forward", want); err != nil {
				t.Error(err)
			}
			if got, err := sysctl.Get("net/ipv4/ip_forward"); got != want || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		}
		if _, err := sysctl.Get("net/ipv4/there_is_no_such_thing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("missing: %v", err)
		}
		if err := sysctl.Set("net/ipv4/there_is_no_such_thing", "1"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("missing: %v", err)
		}
	}()
	<-done
}
