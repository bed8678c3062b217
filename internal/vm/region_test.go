package vm_test

import (
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/vm"
)

func TestTimezonesAndLocales(t *testing.T) {
	tests := []struct {
		what  string
		check func(string) error
		good  []string
		bad   []string
	}{
		{
			"time zone", vm.CheckTimezone,
			[]string{"UTC", "Europe/Rome", "America/Argentina/Buenos_Aires", "Etc/GMT+1", "EST5EDT", "America/Port-au-Prince"},
			[]string{"", ".", "..", "/etc/passwd", "../../etc/shadow", "Europe/../..", "Europe/", "/Europe", "a//b", "Europe/Rome\n", "Europe Rome", "-x", "Europe/-x", "a/b/c/d", "tzdata.zi", "é", "x\x00", strings.Repeat("a", 65)},
		},
		{
			"locale", vm.CheckLocale,
			[]string{"C", "POSIX", "C.UTF-8", "en_US.UTF-8", "de_DE.UTF-8@euro", "sr_RS@latin", "eo", "ber_DZ.ISO-8859-1"},
			[]string{"", "c", ".", "C.UTF-8\n", "C.UTF-8\nLD_PRELOAD=x", "en_us", "EN_US", "$(reboot)", "C.UTF 8", "../x", `"C"`, "en_US.", "en_US.UTF-8@"},
		},
	}
	for _, tt := range tests {
		for _, name := range tt.good {
			if err := tt.check(name); err != nil {
				t.Errorf("%s %q: %v", tt.what, name, err)
			}
		}
		for _, name := range tt.bad {
			if err := tt.check(name); !fault.Is(err, fault.Invalid) || !strings.HasSuffix(err.Error(), "it is not a "+tt.what) || fault.From(err).Hint == "" {
				t.Errorf("%s %q: %v", tt.what, name, err)
			}
		}
	}
}
