package lifecycle_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"banger/internal/hosttest"
)

// A guest that does not answer keeps nobody else's clock from being right, and is complained of once.
func TestClocksAfterASuspend(t *testing.T) {
	w := newWorld(t)
	var said bytes.Buffer
	w.log = slog.New(slog.NewTextHandler(&said, nil))
	w.restart()
	w.must(w.create("one"))
	w.host.Guest = hosttest.Deaf
	w.must(w.create("deaf"))
	w.host.Guest = hosttest.Healthy
	w.must(w.create("two"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "two", 0)))
	for range 2 {
		w.host.Sleep(8 * time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		w.m.SetClocks(ctx)
		cancel()
	}
	if by := w.host.Behind(w.find("one").ID); by != 0 {
		t.Errorf("the clock of one is behind by %v", by)
	}
	if by := w.host.Behind(w.find("deaf").ID); by != 16*time.Hour {
		t.Errorf("the clock of deaf is behind by %v", by)
	}
	if n := strings.Count(said.String(), "the guest's clock was stepped"); n != 2 {
		t.Errorf("%d steps were logged:\n%s", n, &said)
	}
	if n := strings.Count(said.String(), "tell the guest the time"); n != 1 {
		t.Errorf("%d complaints were logged:\n%s", n, &said)
	}
}
