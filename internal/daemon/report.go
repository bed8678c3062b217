package daemon

import (
	"context"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/doctor"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/host/block"
	"banger/internal/host/exec"
	"banger/internal/host/firecracker"
	"banger/internal/host/kvm"
	"banger/internal/host/proc"
	"banger/internal/op"
)

// Status describes this daemon.
func (d *Daemon) Status(ctx context.Context) (api.Status, error) {
	st := api.Status{
		Build: buildinfo.Current(), PID: os.Getpid(), Started: d.started, Instance: d.tag,
		StateDir: d.cfg.StateDir, RuntimeDir: d.cfg.RuntimeDir, Socket: d.cfg.Socket, Log: d.layout.DaemonLog(),
		Bridge: d.tag.Bridge(0), VMs: map[string]int{}, Commits: d.store.Commits(), Children: d.children.Load(),
		Goroutines: runtime.NumGoroutine(), Listeners: d.listeners.list(),
	}
	if r := d.rebuilt; r != nil {
		st.Rebuilt = &api.Rebuilt{At: r.At, Why: r.Why, SetAside: r.SetAside, VMs: r.VMs}
		for _, left := range r.Left {
			st.Rebuilt.Left = append(st.Rebuilt.Left, fault.From(left).Error())
		}
	}
	if s := d.subnet.now(); s.Subnet.IsValid() {
		st.Subnet, st.Subnet6 = s.Subnet.String(), s.ULA.String()
	}
	if v, err := d.driver.Version(ctx); err == nil {
		st.Firecracker = v.String()
	}
	var err error
	if st.SpareTAPs.Idle, st.SpareTAPs.Size, err = d.links.Spares(); err != nil {
		return st, err
	}
	all, err := d.store.VMs(ctx)
	if err != nil {
		return st, err
	}
	for _, v := range all {
		st.VMs[string(v.State)]++
	}
	images, err := d.images.List()
	if err != nil {
		return st, err
	}
	st.Images = len(images)
	for _, o := range d.tracker.List() {
		if o.State == op.Underway {
			st.Operations = append(st.Operations, o)
		}
	}
	self, err := proc.Identify(os.Getpid())
	if err == nil {
		st.RSS, err = proc.RSS(self)
	}
	return st, err
}

// Doctor examines the host.
func (d *Daemon) Doctor(ctx context.Context) []api.Check {
	return doctor.Report(ctx, doctor.Probes{
		Kernel: func(context.Context) (string, error) {
			var u unix.Utsname
			err := unix.Uname(&u)
			return unix.ByteSliceToString(u.Release[:]), err
		},
		Cgroups: func(context.Context) error {
			_, err := proc.OpenGroups(d.tag)
			return err
		},
		KVM: func(context.Context) (doctor.KVM, error) {
			s, err := kvm.Check()
			return doctor.KVM{APIVersion: s.APIVersion, Arch: runtime.GOARCH, Extension: s.Extension}, err
		},
		Firecracker: func(ctx context.Context) (doctor.Firecracker, error) {
			v, err := d.driver.Version(ctx)
			if err != nil {
				return doctor.Firecracker{}, err
			}
			path, err := exec.LookPath(orDefault(d.cfg.FirecrackerBin, "firecracker"))
			f := doctor.Firecracker{Path: path, Version: v.String()}
			for _, q := range firecracker.Quirks(v) {
				if q.Effect == firecracker.Open {
					f.Quirks = append(f.Quirks, q.What)
				}
			}
			return f, err
		},
		Features: d.checks(),
		Programs: doctor.HostPrograms(),
		LookPath: exec.LookPath,
		Space: func(context.Context) (doctor.Space, error) {
			free, size, err := block.Space(d.cfg.StateDir)
			return doctor.Space{Path: d.cfg.StateDir, Free: free, LowWater: rules(d.cfg).Mark(size)}, err
		},
		Reflink: func(context.Context) (bool, error) { return block.Reflinks(d.cfg.StateDir) },
	})
}

// checks are those of all features, and of what else guests' packets meet.
func (d *Daemon) checks() []feature.Check {
	var all []feature.Check
	for _, f := range d.features {
		if c, ok := f.(feature.Checker); ok {
			all = append(all, c.Checks()...)
		}
	}
	return append(all, d.gate.checks()...)
}
