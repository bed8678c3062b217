package vm_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/vm"
)

func TestParseDoor(t *testing.T) {
	for text, want := range map[string]string{
		"8080:80":           "8080:80",
		"80":                "80:80",
		"80/tcp":            "80:80",
		":80":               "0:80",
		"0:80":              "0:80",
		"127.0.0.1:8080:80": "8080:80",
		"127.0.0.1::80":     "0:80",
		"0.0.0.0:8080:80":   "0.0.0.0:8080:80",
		"[::1]:8080:80":     "[::1]:8080:80",
		"[fd00::1]::80":     "[fd00::1]:0:80",
		"08080:080":         "8080:80",
	} {
		d, err := vm.ParseDoor(text)
		if err != nil || d.String() != want {
			t.Errorf("%s: %s, %v", text, d, err)
		}
	}
	for text, want := range map[string]string{
		"":                     `"" is no port number up to 65535`,
		"0":                    "the guest's port cannot be 0",
		"8080:0":               "the guest's port cannot be 0",
		"8080:":                `"" is no port number`,
		"65536":                `"65536" is no port number`,
		"-1:80":                `"-1" is no port number`,
		"http":                 `"http" is no port number`,
		"53/udp":               `"udp" is no protocol of doors`,
		"localhost:8080:80":    `"localhost" is no address`,
		"::1:8080:80":          `"::1" is no address`,
		"[127.0.0.1]:8080:80":  `"[127.0.0.1]" is no address`,
		"[::1:8080:80":         `"[::1" is no address`,
		"[fe80::1%eth0]:80:80": "fe80::1%eth0 is no address that a door can listen on",
		"224.0.0.1:80:80":      "224.0.0.1 is no address that a door can listen on",
	} {
		if d, err := vm.ParseDoor(text); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v", text, d, err)
		}
	}
}

func FuzzParseDoor(f *testing.F) {
	for _, text := range []string{"8080:80", "[::1]:8080:80", "0.0.0.0::80/tcp", "::", "[]:1:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := vm.ParseDoor(text)
		if err != nil {
			return
		}
		if again, err := vm.ParseDoor(d.String()); again != d || err != nil {
			t.Errorf("%q is %q, which is %v, %v", text, d, again, err)
		}
		if d.Port == 0 || !d.Listen.Addr().IsValid() {
			t.Errorf("%q is %v", text, d)
		}
	})
}

func TestDoorsAreAltered(t *testing.T) {
	for _, c := range []struct{ had, text, want string }{
		{"", "", ""},
		{"", "9090:90,80:8080", "80:8080,9090:90"},
		{"8080:80", "9090:90", "9090:90"},
		{"8080:80", "", ""},
		{"8080:80", "+9090:90", "8080:80,9090:90"},
		{"8080:80", "+8080:80", "8080:80"},
		{"8080:80,9090:90", "-8080", "9090:90"},
		{"8080:80,9090:90", "-127.0.0.1:8080,-9090:90", ""},
		{"8080:80,[::1]:8080:80", "-[::1]:8080", "8080:80"},
		{"8080:80,[::1]:8080:80", "-127.0.0.1:8080:80", "[::1]:8080:80"},
		{"8080:80", "-8080,+8080:90", "8080:90"},
		{"8080:80", "0:80", "8080:80"}, // what was chosen stays
		{"8080:80", "+:80", "8080:80"},
		{"8080:80", "+:90", "0:90,8080:80"},
		{"", "0.0.0.0:80:80,[::]:80:80", "0.0.0.0:80:80,[::]:80:80"},
	} {
		had, err := vm.Doors(nil).Alter(c.had)
		if err != nil {
			t.Fatal(err)
		}
		got, err := had.Alter(c.text)
		if err != nil || got.String() != c.want {
			t.Errorf("%s, %s: %s, %v", c.had, c.text, got, err)
		}
		if had.String() != c.had {
			t.Errorf("%s became %s", c.had, had)
		}
	}
	var many []string
	for n := range vm.MaxDoors + 1 {
		many = append(many, fmt.Sprint(n+1))
	}
	for _, c := range []struct{ had, text, want string }{
		{"8080:80", "+9090:90,81:81", "some are to be added or taken away"},
		{"8080:80", "+8080:81", "8080:80 listens there too"},
		{"", "0.0.0.0:80:80,80:90", "0.0.0.0:80:80 listens there too"},
		{"8080:80", "-80", "it has no such port"},
		{"", "-80", "it has no ports that lead to it"},
		{"8080:80,[::1]:8080:80", "-8080", "it can mean 8080:80 or [::1]:8080:80"},
		{"", strings.Join(many, ","), "more than the 64"},
		{"", "80,,81", `"" is no port number`},
	} {
		had, err := vm.Doors(nil).Alter(c.had)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := had.Alter(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: %s, %v", c.had, c.text, got, err)
		}
	}
}

func TestDoorsThatAreToBeChosen(t *testing.T) {
	all, err := vm.Doors(nil).Alter("8080:80,:90,[::1]::90")
	if err != nil {
		t.Fatal(err)
	}
	next := uint16(20000)
	err = all.Choose(func(netip.Addr) (uint16, error) { next++; return next, nil })
	if err != nil || all.String() != "8080:80,20001:90,[::1]:20002:90" {
		t.Error(all, err)
	}
	v := vm.VM{Settings: map[string]string{vm.SettingPorts: all.String()}}
	if got := vm.DoorsOf(v); len(got) != 3 {
		t.Error(got)
	}
	if got := vm.DoorsOf(vm.VM{Settings: map[string]string{vm.SettingPorts: "from the future"}}); got != nil {
		t.Error(got)
	}
}
