package machine

import (
	"testing"
	"time"
)

func TestBusy(t *testing.T) {
	for columns, want := range map[string]time.Duration{
		" 100 20 3 9999 888 4 5 777 60 7": 1320 * time.Millisecond,
		"1 2 3":                           60 * time.Millisecond,
		"":                                0,
		"x":                               0,
	} {
		if got := busy(columns); got != want {
			t.Errorf("%q: %s, want %s", columns, got, want)
		}
	}
}

// TestStatsOfThisMachine reads the files as a kernel writes them.
func TestStatsOfThisMachine(t *testing.T) {
	s := new(Machine).Stats()
	if s.CPU <= 0 || s.MemTotal <= 0 || s.MemAvail <= 0 || s.MemAvail > s.MemTotal {
		t.Errorf("%+v", s)
	}
}
