// Package doctor judges whether a host can run VMs, and says what to do where it cannot. It sees the
// host only through Probes: what each answer means is decided here, how it is got is the caller's.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/vm"
)

// Probes ask the host. A nil probe is one that cannot be asked from where doctor runs: the daemon
// knows KVM and disks, a user's CLI knows the socket and the user's groups. A probe's error becomes
// a failed check, its hint the fix.
type Probes struct {
	KVM         func(context.Context) (KVM, error)
	Firecracker func(context.Context) (Firecracker, error)
	Kernel      func(context.Context) (release string, err error)
	Cgroups     func(context.Context) error
	Features    []feature.Check
	Programs    []Program
	LookPath    func(program string) (path string, err error)
	Space       func(context.Context) (Space, error)
	Reflink     func(context.Context) (bool, error)

	Socket func(context.Context) (Socket, error)
	Daemon func(context.Context) (Daemon, error)
}

// KVM is what its device answered.
type KVM struct {
	APIVersion int    // of KVM_GET_API_VERSION
	Arch       string // as in GOARCH
	Extension  string // "vmx" or "svm" among the CPU's flags; "" when neither is
}

// Firecracker is the hypervisor that would be used. One that is too old to use is the probe's error.
type Firecracker struct {
	Path    string
	Version string
	Quirks  []string // what this version gets wrong, one line each
}

// Program is one that banger runs.
type Program struct {
	Name     string
	Package  string // Debian's, that has it
	Purpose  string // completes "needed to …"
	Optional bool   // most of banger works without it
}

// HostPrograms are those that the daemon runs, all of them to make images: disks are made, grown and
// cloned by system calls. Firecracker has a check of its own.
func HostPrograms() []Program {
	return []Program{
		{Name: "mke2fs", Package: "e2fsprogs", Purpose: "lay out an image's disks"},
		{Name: "debugfs", Package: "e2fsprogs", Purpose: "make /root private in an image"},
		{Name: "mmdebstrap", Package: "mmdebstrap", Purpose: "pull Debian images", Optional: true},
	}
}

// Space is the room in the state directory's file system, in bytes.
type Space struct {
	Path     string
	Free     int64
	LowWater int64 // below which VMs are paused
}

// Socket is the daemon's socket as this user meets it.
type Socket struct {
	Path    string
	Group   string // that owns it
	Member  bool   // this process is in that group, or is root
	Exists  bool
	Listed  bool // the user is in the group by now, but this login began before
	UseSudo bool // the socket is root's alone
}

// Daemon is whom the client met.
type Daemon struct {
	Build  buildinfo.Info
	Client buildinfo.Info
}

// The name that each check bears.
const (
	checkKernel      = "kernel"
	checkCgroups     = "cgroups"
	checkKVM         = "KVM"
	checkFirecracker = "Firecracker"
	checkSpace       = "disk space"
	checkReflink     = "reflinks"
	checkSocket      = "socket"
	checkDaemon      = "daemon"
)

// kvmAPI has been the only KVM API version since Linux 2.6.22; the kernel's documentation tells
// users to refuse any other.
const kvmAPI = 12

// Report runs every probe that there is, in a fixed order.
func Report(ctx context.Context, p Probes) []api.Check {
	var checks []api.Check
	add := func(c api.Check, asked bool) {
		if asked {
			checks = append(checks, c)
		}
	}
	add(judge(ctx, checkKernel, p.Kernel, judgeKernel, "see that /proc is mounted"))
	add(judge(ctx, checkCgroups, asked(p.Cgroups), said("cgroup2 is mounted"), "mount it: mount -t cgroup2 none /sys/fs/cgroup"))
	add(judge(ctx, checkKVM, p.KVM, judgeKVM, "load the module kvm_intel or kvm_amd, and see that /dev/kvm is there"))
	add(judge(ctx, checkFirecracker, p.Firecracker, judgeFirecracker, "put firecracker on PATH, or set firecracker_bin"))
	for _, c := range p.Features {
		add(judge(ctx, c.Name, c.Probe, ok, c.Fix))
	}
	for _, prog := range p.Programs {
		checks = append(checks, judgeProgram(prog, p.LookPath))
	}
	add(judge(ctx, checkSpace, p.Space, judgeSpace, "see that the state directory is there"))
	add(judge(ctx, checkReflink, p.Reflink, judgeReflink, "see that the state directory is there and can be written"))
	add(judge(ctx, checkSocket, p.Socket, judgeSocket, "sudo banger setup"))
	add(judge(ctx, checkDaemon, p.Daemon, judgeDaemon, "see `systemctl status bangerd`, or start bangerd as root"))
	return checks
}

// asked makes a probe that only succeeds or fails one that answers.
func asked(probe func(context.Context) error) func(context.Context) (struct{}, error) {
	if probe == nil {
		return nil
	}
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, probe(ctx) }
}

// said is the verdict on a probe that succeeded.
func said(detail string) func(struct{}) api.Check {
	return func(struct{}) api.Check { return ok(detail) }
}

// Verdict is nil unless a check failed.
func Verdict(checks []api.Check) error {
	var names []string
	for _, c := range checks {
		if c.Result == api.CheckFailed {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fault.New(fault.Requirement, "this host is not ready: %s", strings.Join(slices.Compact(names), ", ")).
		WithHint("each failed check above says how to fix it")
}

// judge asks a probe, if there is one. fix is what to do about an error that does not say it itself.
func judge[T any](ctx context.Context, name string, probe func(context.Context) (T, error), verdict func(T) api.Check, fix string) (c api.Check, asked bool) {
	if probe == nil {
		return c, false
	}
	answer, err := probe(ctx)
	if err != nil {
		f := fault.From(err)
		c = failed(cmp.Or(f.Hint, fix), "%s", f.Error())
	} else {
		c = verdict(answer)
	}
	c.Name = name
	return c, true
}

// The oldest kernel that has what banger uses: cgroup.kill, which ends all of a cgroup at once, came
// with Linux 5.14.
const (
	kernelMajor = 5
	kernelMinor = 14
)

func judgeKernel(release string) api.Check {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return warning(fmt.Sprintf("see that it is Linux %d.%d or newer", kernelMajor, kernelMinor), "%q does not say which Linux it is", release)
	}
	if major < kernelMajor || major == kernelMajor && minor < kernelMinor {
		return failed(fmt.Sprintf("run Linux %d.%d or newer", kernelMajor, kernelMinor), "Linux %s has no cgroup.kill, so what a VM leaves behind cannot be ended", release)
	}
	return ok("Linux " + release)
}

func judgeKVM(k KVM) api.Check {
	switch {
	case k.APIVersion != kvmAPI:
		return failed("run a mainline Linux kernel", "it speaks API version %d, not %d", k.APIVersion, kvmAPI)
	case k.Arch == "amd64" && k.Extension == "":
		return failed("enable VT-x or AMD-V in the firmware, or nested virtualization where this host is itself a VM",
			"the device opens, but the CPU has neither vmx nor svm, so no guest can run")
	case k.Extension != "":
		return ok("usable, " + k.Extension)
	default:
		return ok("usable")
	}
}

func judgeFirecracker(f Firecracker) api.Check {
	found := f.Version + " at " + f.Path
	if len(f.Quirks) > 0 {
		return warning("use a newer release where these matter to you", "%s; known of this version: %s", found, strings.Join(f.Quirks, "; "))
	}
	return ok(found)
}

func judgeProgram(p Program, look func(string) (string, error)) api.Check {
	path, err := look(p.Name)
	var c api.Check
	switch {
	case err == nil:
		c = ok(path)
	case p.Optional:
		c = warning("sudo apt install "+p.Package, "not found; needed to %s", p.Purpose)
	default:
		c = failed("sudo apt install "+p.Package, "not found; needed to %s", p.Purpose)
	}
	c.Name = p.Name
	return c
}

func judgeSpace(s Space) api.Check {
	text := fmt.Sprintf("%s free in %s", vm.FormatSize(s.Free), s.Path)
	switch {
	case s.Free < s.LowWater:
		return failed("free some space: delete VMs or images, or set a lower admission.low_water", "%s, less than the low-water mark of %s: no VM starts, and those that run are paused", text, vm.FormatSize(s.LowWater))
	case s.Free < 4*s.LowWater:
		return warning("free some space before long", "%s, which VMs' disks may fill", text)
	default:
		return ok(text)
	}
}

func judgeReflink(can bool) api.Check {
	if can {
		return ok("a VM's disks are cloned at once and share blocks with their image")
	}
	return warning("put the state directory on btrfs, or on XFS made with reflink=1",
		"the file system has none, so every create copies its image's root file system")
}

func judgeSocket(s Socket) api.Check {
	switch {
	case !s.Exists:
		return failed("sudo banger setup", "there is none at %s", s.Path)
	case s.Member:
		return ok(s.Path)
	case s.UseSudo:
		return failed("sudo banger setup, which gives it to a group", "%s belongs to root alone", s.Path)
	case s.Listed:
		return failed("log in again, or run `newgrp "+s.Group+"`", "this login began before you joined the group %s", s.Group)
	default:
		return failed("sudo usermod -aG "+s.Group+" $USER, then log in again", "you are not in the group %s", s.Group)
	}
}

func judgeDaemon(d Daemon) api.Check {
	switch {
	case buildinfo.Newer(d.Client, d.Build):
		return warning("restart it when convenient: sudo systemctl restart bangerd", "it runs %s, this command is the newer %s", d.Build.Version, d.Client.Version)
	case buildinfo.Newer(d.Build, d.Client):
		return warning("install the release that the daemon runs", "it runs %s, this command is the older %s", d.Build.Version, d.Client.Version)
	default:
		return ok("answers, " + d.Build.Version)
	}
}

func ok(detail string) api.Check { return api.Check{Result: api.CheckOK, Detail: detail} }

func warning(fix, format string, args ...any) api.Check {
	return api.Check{Result: api.CheckWarn, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func failed(fix, format string, args ...any) api.Check {
	return api.Check{Result: api.CheckFailed, Detail: fmt.Sprintf(format, args...), Fix: fix}
}
