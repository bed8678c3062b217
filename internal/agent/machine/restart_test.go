package machine

import (
	"fmt"
	"testing"
)

func TestPlanFor(t *testing.T) {
	tests := []struct {
		exe  string
		argv []string
		want string
	}{
		{"/usr/lib/systemd/systemd", []string{"/sbin/init"}, "[[systemctl reboot]] signal 39 2m0s"},
		{"/usr/lib/systemd/systemd (deleted)", []string{"/sbin/init"}, "[[systemctl reboot]] signal 39 2m0s"}, // a package upgrade
		{"/bin/busybox", []string{"/sbin/init"}, "[] terminated 2m0s"},
		{"/bin/busybox", []string{"busybox", "init"}, "[] terminated 2m0s"},
		{"/bin/busybox", []string{"init", ""}, "[] terminated 2m0s"},
		{"/bin/busybox", []string{"/bin/sh", "/sbin/init"}, "[[reboot]] signal 0 10s"},
		{"/usr/sbin/runit", []string{"runit"}, "[[runit-init 6] [init 6] [reboot]] signal 0 2m0s"},
		{"/sbin/openrc-init", nil, "[[openrc-shutdown -r now] [reboot]] signal 0 2m0s"},
		{"/sbin/init", []string{"init [2]"}, "[[shutdown -r now] [reboot]] signal 0 2m0s"},
		{"", nil, "[[reboot]] signal 0 10s"},
	}
	for _, tt := range tests {
		p := planFor(tt.exe, tt.argv)
		if got := fmt.Sprint(p.programs, " ", p.signal, " ", p.budget); got != tt.want {
			t.Errorf("%s %q: %s, want %s", tt.exe, tt.argv, got, tt.want)
		}
	}
}

func TestInfo(t *testing.T) {
	i := (&Machine{Version: "1.2.3"}).Info()
	if i.Agent != "1.2.3" || i.Kernel == "" || i.Hostname == "" || len(i.BootID) != 36 || i.Uptime <= 0 ||
		i.MemTotal <= i.MemAvail || i.MemAvail <= 0 || i.AgentRSS <= 0 {
		t.Errorf("got %+v", i)
	}
}

func TestKilobytes(t *testing.T) {
	for in, want := range map[string]int64{"1024 kB": 1 << 20, "0 kB": 0, "": 0, "junk": 0} {
		if got := kilobytes(in); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}
