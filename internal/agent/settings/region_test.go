package settings_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/agentproto"
)

// distribution is a tree with a time zone database and the places where locales are read.
func distribution(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"etc/default", "usr/lib/systemd", "usr/share/zoneinfo/Europe", "usr/share/zoneinfo/Etc"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for _, zone := range []string{"Europe/Rome", "Europe/Oslo", "Etc/UTC"} {
		must(t, os.WriteFile(filepath.Join(dir, "usr/share/zoneinfo", zone), nil, 0o644))
	}
	must(t, os.Symlink("/usr/share/zoneinfo/Etc/UTC", filepath.Join(dir, "etc/localtime")))
	return dir
}

func region(zone, locale string) agentproto.GuestConfig {
	return agentproto.GuestConfig{Timezone: zone, Locale: locale}
}

// etc is what the tree says of time zone and locale.
func etc(t *testing.T, dir string) string {
	t.Helper()
	zone, err := os.Readlink(filepath.Join(dir, "etc/localtime"))
	must(t, err)
	out := []string{zone}
	for _, name := range []string{"etc/timezone", "etc/locale.conf", "etc/default/locale"} {
		text, _ := os.ReadFile(filepath.Join(dir, name)) // none is empty
		out = append(out, strings.TrimSuffix(string(text), "\n"))
	}
	return strings.Join(out, " ")
}

func TestWhatTheUserChangesStays(t *testing.T) {
	dir := distribution(t)
	step := func(what string, cfg agentproto.GuestConfig, want string) {
		t.Helper()
		must(t, write(t, dir, cfg))
		if d := cmp.Diff(want, etc(t, dir)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	const rome = "../usr/share/zoneinfo/Europe/Rome Europe/Rome "
	step("nothing is asked for", region("", ""), "/usr/share/zoneinfo/Etc/UTC   ")
	step("the image's is replaced", region("Europe/Rome", "C.UTF-8"), rome+"LANG=C.UTF-8 LANG=C.UTF-8")
	step("another is asked for", region("Europe/Oslo", "nb_NO.UTF-8"), "../usr/share/zoneinfo/Europe/Oslo Europe/Oslo LANG=nb_NO.UTF-8 LANG=nb_NO.UTF-8")

	// As timedatectl does it, and by hand.
	must(t, os.Remove(filepath.Join(dir, "etc/localtime")))
	must(t, os.Symlink("../usr/share/zoneinfo/Etc/UTC", filepath.Join(dir, "etc/localtime")))
	must(t, os.WriteFile(filepath.Join(dir, "etc/default/locale"), []byte("LANG=de_DE.UTF-8\n"), 0o644))
	const users = "../usr/share/zoneinfo/Etc/UTC Europe/Oslo LANG=nb_NO.UTF-8 LANG=de_DE.UTF-8"
	step("the user has changed it", region("Europe/Oslo", "nb_NO.UTF-8"), users)
	step("the user has changed it before another is asked for", region("Europe/Rome", "C.UTF-8"),
		"../usr/share/zoneinfo/Etc/UTC Europe/Oslo LANG=C.UTF-8 LANG=de_DE.UTF-8")
}

func TestALocaleThatIsALink(t *testing.T) {
	dir := distribution(t)
	must(t, os.Symlink("../locale.conf", filepath.Join(dir, "etc/default/locale"))) // as Debian 13 has it
	must(t, write(t, dir, region("", "C.UTF-8")))
	if target, err := os.Readlink(filepath.Join(dir, "etc/default/locale")); err != nil || target != "../locale.conf" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if got := etc(t, dir); !strings.HasSuffix(got, "LANG=C.UTF-8 LANG=C.UTF-8") {
		t.Error(got)
	}
}

// What a guest has no place for is left alone until it has.
func TestARegionInASmallGuest(t *testing.T) {
	dir := t.TempDir()
	must(t, write(t, dir, region("Europe/Rome", "C.UTF-8")))
	if got := tree(t, dir); got != "\n" {
		t.Errorf("the tree holds\n%s", got)
	}
	must(t, os.MkdirAll(filepath.Join(dir, "usr/share/zoneinfo/Europe"), 0o755))
	if err := write(t, dir, region("Europe/Rome", "")); err == nil || !strings.Contains(err.Error(), "timezone Europe/Rome is not in the guest's /usr/share/zoneinfo/") {
		t.Errorf("error %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "usr/share/zoneinfo/Europe/Rome"), nil, 0o644))
	must(t, write(t, dir, region("Europe/Rome", "")))
	if got := etc(t, dir); got != "../usr/share/zoneinfo/Europe/Rome Europe/Rome  " {
		t.Error(got)
	}
}

// The memory is the guest's too: whatever it is, nothing outside the tree is touched.
func TestAHostileMemory(t *testing.T) {
	outside := t.TempDir()
	for name, arrange := range map[string]func(dir string) error{
		"a directory": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "var/lib/banger-agent/timezone"), 0o755) },
		"a way out":   func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "var")) },
		"a long memory": func(dir string) error {
			must(t, os.MkdirAll(filepath.Join(dir, "var/lib/banger-agent"), 0o755))
			return os.WriteFile(filepath.Join(dir, "var/lib/banger-agent/timezone"), make([]byte, 1<<20), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := distribution(t)
			must(t, arrange(dir))
			if err := write(t, dir, region("Europe/Rome", "")); err == nil {
				t.Error("no error")
			}
			if entries, _ := os.ReadDir(outside); len(entries) != 0 {
				t.Errorf("outside: %v", entries)
			}
		})
	}
}
