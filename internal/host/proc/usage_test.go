package proc_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"banger/internal/host/proc"
)

func TestUse(t *testing.T) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	before, err := proc.Use(self, true)
	if err != nil {
		t.Fatal(err)
	}
	if before.RSS < 1<<20 || before.PSS < 1<<20 || before.PSS > 2*before.RSS {
		t.Errorf("%+v", before)
	}
	ballast := make([]byte, 64<<20)
	for deadline := time.Now().Add(20 * time.Second); ; {
		for i := 0; i < len(ballast); i += 4096 {
			ballast[i]++
		}
		now, err := proc.Use(self, false)
		if err != nil || now.PSS != 0 {
			t.Fatalf("%+v, %v", now, err)
		}
		if now.CPU > before.CPU+50*time.Millisecond && now.RSS > before.RSS+32<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after much work: %+v, before: %+v", now, before)
		}
	}

	self.StartTime++ // another process that had this pid
	if _, err := proc.Use(self, true); !errors.Is(err, proc.ErrGone) {
		t.Errorf("a process that is gone: %v", err)
	}
}
