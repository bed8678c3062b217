// Package netnstest runs tests that change a network in one of their own.
package netnstest

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// In runs the test in a network namespace of its own, which takes root. Its thread is never unlocked, so that it ends with the
// test and nothing else ever runs in the namespace; so the test must not end by t.Fatal.
func In(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace (the test needs root): %v", err)
			return
		}
		test(t)
	}()
	<-done
}
