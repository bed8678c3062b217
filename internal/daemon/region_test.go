package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHostTimezone(t *testing.T) {
	for _, tt := range []struct{ name, localtime, timezone, want string }{
		{"nothing is said", "", "", ""},
		{"a link", "/usr/share/zoneinfo/Europe/Rome", "", "Europe/Rome"},
		{"a relative link", "../usr/share/zoneinfo/Etc/UTC", "Asia/Tokyo\n", "Etc/UTC"},
		{"a link of its own", "/etc/zones/mine", "Asia/Tokyo\n", "Asia/Tokyo"},
		{"a link out", "/usr/share/zoneinfo/../../shadow", "", ""},
		{"a file", "", "Asia/Tokyo\n", "Asia/Tokyo"},
		{"a file of something else", "", "no zone\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			etc := filepath.Join(root, "etc")
			if err := os.Mkdir(etc, 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.localtime != "" {
				if err := os.Symlink(tt.localtime, filepath.Join(etc, "localtime")); err != nil {
					t.Fatal(err)
				}
			}
			if tt.timezone != "" {
				if err := os.WriteFile(filepath.Join(etc, "timezone"), []byte(tt.timezone), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := hostTimezone(root); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
