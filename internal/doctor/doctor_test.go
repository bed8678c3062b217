package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/doctor"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/vm"
)

func answer[T any](v T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return v, nil }
}

func text(checks []api.Check) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%s %s: %s", c.Result, c.Name, c.Detail)
		if c.Fix != "" {
			fmt.Fprintf(&b, " -> %s", c.Fix)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestReportOfAGoodHost(t *testing.T) {
	build := buildinfo.Info{Version: "v1.2.3", Stamp: 5}
	checks := doctor.Report(t.Context(), doctor.Probes{
		Kernel:      answer("6.1.0-13-amd64"),
		Cgroups:     func(context.Context) error { return nil },
		KVM:         answer(doctor.KVM{APIVersion: 12, Arch: "amd64", Extension: "svm"}),
		Firecracker: answer(doctor.Firecracker{Path: "/usr/bin/firecracker", Version: "1.16.1"}),
		Features:    []feature.Check{{Name: "agent", Probe: answer("/usr/lib/banger/banger-agent")}, {Name: "subnet", Probe: answer("10.223.0.0/22")}},
		Programs:    doctor.HostPrograms()[:1],
		LookPath:    func(p string) (string, error) { return "/sbin/" + p, nil },
		Space:       answer(doctor.Space{Path: "/var/lib/banger", Free: 100 * vm.GiB, LowWater: 2 * vm.GiB}),
		Reflink:     answer(true),
		Socket:      answer(doctor.Socket{Path: "/run/banger/banger.sock", Exists: true, Member: true}),
		Daemon:      answer(doctor.Daemon{Build: build, Client: build}),
	})
	want := `ok kernel: Linux 6.1.0-13-amd64
ok cgroups: cgroup2 is mounted
ok KVM: usable, svm
ok Firecracker: 1.16.1 at /usr/bin/firecracker
ok agent: /usr/lib/banger/banger-agent
ok subnet: 10.223.0.0/22
ok mke2fs: /sbin/mke2fs
ok disk space: 100 GiB free in /var/lib/banger
ok reflinks: a VM's disks are cloned at once and share blocks with their image
ok socket: /run/banger/banger.sock
ok daemon: answers, v1.2.3
`
	if diff := cmp.Diff(want, text(checks)); diff != "" {
		t.Error(diff)
	}
	if err := doctor.Verdict(checks); err != nil {
		t.Error(err)
	}
}

func TestVerdictsOfBadHosts(t *testing.T) {
	const apt = "sudo apt install "
	old, young := buildinfo.Info{Version: "v1", Stamp: 1}, buildinfo.Info{Version: "v2", Stamp: 2}
	none := func(p string) (string, error) { return "", errors.New("no " + p) }
	for name, tc := range map[string]struct {
		probes doctor.Probes
		want   string
	}{
		"nothing probed": {doctor.Probes{}, ""},
		"a kernel too old": {
			doctor.Probes{Kernel: answer("5.10.0-28-amd64")},
			"failed kernel: Linux 5.10.0-28-amd64 has no cgroup.kill, so what a VM leaves behind cannot be ended -> run Linux 5.14 or newer\n",
		},
		"a kernel just new enough": {doctor.Probes{Kernel: answer("5.14.0")}, "ok kernel: Linux 5.14.0\n"},
		"a kernel of an age ago":   {doctor.Probes{Kernel: answer("4.19.0")}, "failed kernel: Linux 4.19.0 has no cgroup.kill, so what a VM leaves behind cannot be ended -> run Linux 5.14 or newer\n"},
		"a kernel of one's own": {
			doctor.Probes{Kernel: answer("mine")}, "warning kernel: \"mine\" does not say which Linux it is -> see that it is Linux 5.14 or newer\n",
		},
		"no cgroup2": {
			doctor.Probes{Cgroups: func(context.Context) error {
				return fault.New(fault.Requirement, "no cgroup2 file system is mounted").WithOp("open cgroups", "").WithHint("mount it")
			}},
			"failed cgroups: open cgroups: no cgroup2 file system is mounted -> mount it\n",
		},
		"no extension": {
			doctor.Probes{KVM: answer(doctor.KVM{APIVersion: 12, Arch: "amd64"})},
			"failed KVM: the device opens, but the CPU has neither vmx nor svm, so no guest can run -> enable VT-x or AMD-V in the firmware, or nested virtualization where this host is itself a VM\n",
		},
		"arm has no such flag": {
			doctor.Probes{KVM: answer(doctor.KVM{APIVersion: 12, Arch: "arm64"})}, "ok KVM: usable\n",
		},
		"KVM of another age": {
			doctor.Probes{KVM: answer(doctor.KVM{APIVersion: 11, Arch: "amd64", Extension: "vmx"})},
			"failed KVM: it speaks API version 11, not 12 -> run a mainline Linux kernel\n",
		},
		"a probe that fails": {
			doctor.Probes{Firecracker: func(context.Context) (doctor.Firecracker, error) {
				return doctor.Firecracker{}, fault.New(fault.Requirement, "it is not on PATH").WithOp("find", "firecracker").WithHint("install it")
			}},
			"failed Firecracker: find \"firecracker\": it is not on PATH -> install it\n",
		},
		"quirks": {
			doctor.Probes{Firecracker: answer(doctor.Firecracker{Path: "/fc", Version: "1.12.1", Quirks: []string{"a", "b"}})},
			"warning Firecracker: 1.12.1 at /fc; known of this version: a; b -> use a newer release where these matter to you\n",
		},
		"no TUN": {
			doctor.Probes{Features: []feature.Check{{Name: "TUN", Fix: "another", Probe: func(context.Context) (string, error) {
				return "", fault.New(fault.Requirement, "no such device").WithHint("modprobe tun")
			}}}},
			"failed TUN: no such device -> modprobe tun\n",
		},
		"programs missing": {
			doctor.Probes{Programs: []doctor.Program{{Name: "mke2fs", Package: "e2fsprogs", Purpose: "make disks"}, {Name: "x", Package: "y", Purpose: "z", Optional: true}}, LookPath: none},
			"failed mke2fs: not found; needed to make disks -> " + apt + "e2fsprogs\nwarning x: not found; needed to z -> " + apt + "y\n",
		},
		"little space": {
			doctor.Probes{Space: answer(doctor.Space{Path: "/v", Free: 3 * vm.GiB, LowWater: vm.GiB})},
			"warning disk space: 3 GiB free in /v, which VMs' disks may fill -> free some space before long\n",
		},
		"no space": {
			doctor.Probes{Space: answer(doctor.Space{Path: "/v", Free: vm.MiB, LowWater: vm.GiB})},
			"failed disk space: 1 MiB free in /v, less than the low-water mark of 1 GiB: no VM starts, and those that run are paused -> free some space: delete VMs or images, or set a lower admission.low_water\n",
		},
		"no reflinks": {
			doctor.Probes{Reflink: answer(false)},
			"warning reflinks: the file system has none, so every create copies its image's root file system -> put the state directory on btrfs, or on XFS made with reflink=1\n",
		},
		"no socket": {
			doctor.Probes{Socket: answer(doctor.Socket{Path: "/s"})}, "failed socket: there is none at /s -> sudo banger setup\n",
		},
		"not in the group": {
			doctor.Probes{Socket: answer(doctor.Socket{Path: "/s", Exists: true, Group: "banger"})},
			"failed socket: you are not in the group banger -> sudo usermod -aG banger $USER, then log in again\n",
		},
		"an old login": {
			doctor.Probes{Socket: answer(doctor.Socket{Path: "/s", Exists: true, Group: "banger", Listed: true})},
			"failed socket: this login began before you joined the group banger -> log in again, or run `newgrp banger`\n",
		},
		"root's socket": {
			doctor.Probes{Socket: answer(doctor.Socket{Path: "/s", Exists: true, Group: "root", UseSudo: true})},
			"failed socket: /s belongs to root alone -> sudo banger setup, which gives it to a group\n",
		},
		"older daemon": {
			doctor.Probes{Daemon: answer(doctor.Daemon{Build: old, Client: young})},
			"warning daemon: it runs v1, this command is the newer v2 -> restart it when convenient: sudo systemctl restart bangerd\n",
		},
		"newer daemon": {
			doctor.Probes{Daemon: answer(doctor.Daemon{Build: young, Client: old})},
			"warning daemon: it runs v2, this command is the older v1 -> install the release that the daemon runs\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			checks := doctor.Report(t.Context(), tc.probes)
			if diff := cmp.Diff(tc.want, text(checks)); diff != "" {
				t.Error(diff)
			}
			err := doctor.Verdict(checks)
			if failed := strings.Contains(tc.want, "failed "); failed != (err != nil) {
				t.Errorf("verdict: %v", err)
			} else if failed && !fault.Is(err, fault.Requirement) {
				t.Errorf("verdict: %v", err)
			}
		})
	}
}

// TestEveryFindingHasAFix lets every probe fail without saying what to do.
func TestEveryFindingHasAFix(t *testing.T) {
	boom := errors.New("boom")
	checks := doctor.Report(t.Context(), doctor.Probes{
		Kernel:      broken[string](boom),
		Cgroups:     func(context.Context) error { return boom },
		KVM:         broken[doctor.KVM](boom),
		Firecracker: broken[doctor.Firecracker](boom),
		Features:    []feature.Check{{Name: "x", Probe: broken[string](boom), Fix: "mend it"}},
		Programs:    doctor.HostPrograms(),
		LookPath:    func(string) (string, error) { return "", boom },
		Space:       broken[doctor.Space](boom),
		Reflink:     broken[bool](boom),
		Socket:      broken[doctor.Socket](boom),
		Daemon:      broken[doctor.Daemon](boom),
	})
	if want := 9 + len(doctor.HostPrograms()); len(checks) != want {
		t.Errorf("%d findings, want %d", len(checks), want)
	}
	for _, c := range checks {
		if c.Result == api.CheckOK || c.Fix == "" || c.Detail == "" {
			t.Errorf("%+v", c)
		}
	}
}

func broken[T any](err error) func(context.Context) (T, error) {
	return func(context.Context) (T, error) {
		var none T
		return none, err
	}
}
