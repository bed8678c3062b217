package sysctl_test

import (
	"errors"
	"io/fs"
	"testing"

	"banger/internal/host/sysctl"
	"banger/internal/netnstest"
)

func TestGetAndSet(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
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
	})
}
