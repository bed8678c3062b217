package imagebuild

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/image"
)

func openTree(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	plant(t, dir, files)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root
}

func TestFindInit(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"plain":                  {map[string]string{"sbin/init": "x"}, "/sbin/init"},
		"absolute link":          {map[string]string{"sbin/init": "-> /lib/systemd/systemd", "lib/systemd/systemd": "x"}, "/sbin/init"},
		"merged usr":             {map[string]string{"sbin": "-> usr/sbin", "usr/sbin/init": "-> ../lib/systemd/systemd", "usr/lib/systemd/systemd": "x"}, "/sbin/init"},
		"climbs past the root":   {map[string]string{"sbin/init": "-> ../../../../usr/lib/init", "usr/lib/init": "x"}, "/sbin/init"},
		"no link at all":         {map[string]string{"usr/lib/systemd/systemd": "x"}, "/usr/lib/systemd/systemd"},
		"busybox alone":          {map[string]string{"bin/busybox": "x"}, "/bin/busybox"},
		"the first link dangles": {map[string]string{"sbin/init": "-> /nowhere", "sbin/openrc-init": "x"}, "/sbin/openrc-init"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := findInit(openTree(t, c.files)); err != nil || got != c.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestNoInitSaysWhatWasLookedFor(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"empty":       {},
		"a circle":    {"sbin/init": "-> /init", "init": "-> /sbin/init"},
		"the host's":  {"sbin/init": "-> /proc/self/exe"},
		"a directory": {"sbin/init/x": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := findInit(openTree(t, files))
			f := fault.From(err)
			if f == nil || f.Code != fault.Invalid || !strings.Contains(f.Hint, "/sbin/init, ") || !strings.Contains(f.Hint, "/bin/busybox") {
				t.Errorf("got %+v", f)
			}
		})
	}
	root := openTree(t, map[string]string{"sbin/init": "x"})
	if err := root.Chmod("sbin/init", 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := findInit(root); err == nil {
		t.Errorf("took %s, which is not executable", got)
	}
}

func TestServices(t *testing.T) {
	const enabled = "etc/systemd/system/multi-user.target.wants/ssh.service"
	if d := cmp.Diff([]image.Service{{Name: "ssh", Port: 22}}, services(openTree(t, map[string]string{enabled: "-> /lib/systemd/system/ssh.service"}))); d != "" {
		t.Error(d)
	}
	if got := services(openTree(t, map[string]string{"lib/systemd/system/ssh.service": ""})); got != nil {
		t.Errorf("got %v for a service that is not enabled", got)
	}
}

func TestPrettyName(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"as Debian has it":      {map[string]string{"etc/os-release": "-> ../usr/lib/os-release", "usr/lib/os-release": "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"}, "Debian GNU/Linux 12"},
		"without quotes":        {map[string]string{"etc/os-release": "PRETTY_NAME=Tiny\n"}, "Tiny"},
		"none":                  {nil, ""},
		"escapes of a terminal": {map[string]string{"etc/os-release": "PRETTY_NAME=\"a\x1b[2Jb\"\n"}, "a[2Jb"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := prettyName(openTree(t, c.files)); got != c.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestDpkg(t *testing.T) {
	const status = `Package: base-files
Status: install ok installed
Architecture: amd64
Description: text
 with Package: in it
Version: 12.4

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: linux-image
Status: hold ok installed
Architecture: all
Version: 6.1`
	list, sum, err := dpkg(openTree(t, map[string]string{"var/lib/dpkg/status": status}))
	if err != nil {
		t.Fatal(err)
	}
	want := []image.Package{{Name: "base-files", Version: "12.4", Arch: "amd64"}, {Name: "linux-image", Version: "6.1", Arch: "all"}}
	if d := cmp.Diff(want, list); d != "" {
		t.Error(d)
	}
	_, other, err := dpkg(openTree(t, map[string]string{"var/lib/dpkg/status": strings.Replace(status, "12.4", "12.5", 1)}))
	if err != nil || other == sum || len(sum) != 64 {
		t.Errorf("another version has the digest %s, %s: %v", other, sum, err)
	}
	if list, sum, err := dpkg(openTree(t, nil)); list != nil || sum != "" || err != nil {
		t.Errorf("without dpkg: %v %q %v", list, sum, err)
	}
}
