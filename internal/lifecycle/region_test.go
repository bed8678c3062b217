package lifecycle_test

import (
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/lifecycle"
)

// A VM keeps the time zone and the locale that it was made with, whatever the daemon's defaults become.
func TestTimezoneAndLocaleAreChosenAtCreate(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("plain"))
	w.must(w.end(w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev", Timezone: "Europe/Rome", Locale: "it_IT.UTF-8"})))
	w.m.Defaults.Locale = "POSIX"
	for _, again := range []bool{false, true} {
		if again {
			w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
			w.must(w.end(w.m.Start(t.Context(), alice, "dev")))
		}
		for name, want := range map[string]string{"plain": " C.UTF-8", "dev": "Europe/Rome it_IT.UTF-8"} {
			v := w.find(name)
			cfg := w.host.Config(v.ID)
			if got := cfg.Timezone + " " + cfg.Locale; got != want || v.Timezone+" "+v.Locale != want {
				t.Errorf("%s was told %q, and is shown as %q %q; want %q", name, got, v.Timezone, v.Locale, want)
			}
		}
	}
	for _, req := range []lifecycle.CreateRequest{
		{Name: "bad", Timezone: "../../etc/shadow"},
		{Name: "bad", Locale: "C\nLD_PRELOAD=x"},
	} {
		_, err := w.m.Create(t.Context(), alice, req)
		if code(err) != fault.Invalid || !strings.HasPrefix(err.Error(), "read ") {
			t.Errorf("%+v: %v", req, err)
		}
	}
}
