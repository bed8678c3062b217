package daemon

import (
	"context"
	"errors"
	"strings"

	"banger/internal/fault"
	"banger/internal/vm"
)

// UninstallNetwork takes away what the instance has changed of the host's network and what outlives its VMs: accepts in
// others' firewalls and the kernel's settings, which the next VM that starts has made again, and what the host's resolver was told.
func (d *Daemon) UninstallNetwork(ctx context.Context, caller vm.Caller, dryRun bool) ([]string, error) {
	if caller.UID != 0 {
		return nil, fault.New(fault.Forbidden, "it concerns the whole host, so only root may").WithOp("uninstall network", "").
			WithHint("run it with sudo")
	}
	guests, err := d.guests(ctx)
	if err != nil {
		return nil, err
	}
	if len(guests) > 0 {
		var names []string
		for _, g := range guests {
			names = append(names, g.Name)
		}
		return nil, fault.New(fault.InUse, "VMs run: %s", strings.Join(names, ", ")).WithOp("uninstall network", "").
			WithHint("stop them first: `banger vm stop --all`")
	}
	if !dryRun {
		// What an interrupted stop has left goes first: devices, and the tables with the last guest.
		if _, err := d.manager.Reconcile(ctx, true); err != nil {
			return nil, err
		}
	}
	names, err := d.wiring.undo(ctx, caller, dryRun)
	if err != nil {
		return nil, err
	}
	lines, err := d.gate.uninstall(ctx, dryRun)
	if len(names.Steps) > 0 {
		lines = append(lines, "what this host's resolver was told of VMs' names")
	}
	return lines, err
}

// uninstall takes away what outlives the guests.
func (g *gate) uninstall(ctx context.Context, dryRun bool) (lines []string, err error) {
	accepts, err := g.others.List(ctx)
	if err != nil {
		return nil, err
	}
	docker := false
	for _, a := range accepts {
		docker = docker || a.Firewall == "Docker"
		if a.There {
			lines = append(lines, "the accept for VMs in "+a.Firewall+", "+a.Where)
		}
	}
	if dryRun {
		changed, err := g.forwarding.Changed(ctx, docker)
		return append(lines, settings(changed)...), err
	}
	g.whole.Lock()
	defer g.whole.Unlock()
	if err := g.tables.Remove(ctx); err != nil { // a VM may have started meanwhile
		return nil, err
	}
	g.mu.Lock()
	g.passes = false
	g.mu.Unlock()
	g.passing.Lock()
	defer g.passing.Unlock()
	_, err = g.others.Remove(ctx)
	// Docker sets it when it starts, and never looks again.
	restored, failed := g.forwarding.Restore(ctx, docker)
	return append(lines, settings(restored)...), errors.Join(err, failed)
}

func settings(names []string) []string {
	var lines []string
	for _, name := range names {
		lines = append(lines, "the change of the kernel's setting "+name)
	}
	return lines
}
