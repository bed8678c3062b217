package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/vm"
)

// step is one labelled effect of a verb. The label names it in stages, logs and tests.
type step struct {
	label string
	do    func(ctx context.Context, report feature.Report) error
}

// group is steps that may run side by side.
type group []step

// run executes groups in order. It returns when every step it started has returned, so that undo
// never races a straggler.
func run(ctx context.Context, job *op.Job, groups ...group) error {
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var eg *errgroup.Group
		gctx := ctx
		if len(g) > 1 {
			eg, gctx = errgroup.WithContext(ctx)
		} else {
			eg = new(errgroup.Group)
		}
		for _, s := range g {
			eg.Go(func() error {
				stage := job.Stage(s.label)
				err := around(s.label, func() error { return s.do(gctx, stage.Detail) })
				stage.End(err)
				return err
			})
		}
		if err := eg.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// preflight asks whether the host has what a start of the VM needs.
func (m *Manager) preflight(ctx context.Context, v vm.VM) error {
	if err := m.Preflight(ctx); err != nil {
		return err
	}
	for _, f := range m.features {
		if p, ok := f.(feature.Preflighter); ok {
			if err := p.Preflight(ctx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// guardBudget is how long a guard may take to find out whether it objects.
const guardBudget = 10 * time.Second

// guard asks whether a feature objects to the VM's deletion.
func (m *Manager) guard(ctx context.Context, v vm.VM) error {
	ctx, cancel := context.WithTimeout(ctx, guardBudget)
	defer cancel()
	guest := m.guestIn(v)
	for _, f := range m.features {
		if g, ok := f.(feature.Guard); ok {
			if err := g.Guard(ctx, v, guest); err != nil {
				return fault.From(err).InOp("delete VM", v.Name)
			}
		}
	}
	return nil
}

// guestIn is the agent of a VM that runs, for features; nil where there is none that could be asked.
func (m *Manager) guestIn(v vm.VM) feature.Guest {
	if l := m.liveOf(v.ID); l != nil && v.State == vm.Running {
		return l.agent()
	}
	return nil
}

// provision lists the once-only steps of every feature, which begin with a snapshot's directory or, where from
// is "", with the image. What is to be started goes on with what every start needs of the feature.
func (m *Manager) provision(job *op.Job, v vm.VM, from string, start bool) group {
	var g group
	for _, f := range m.features {
		p, ok := f.(feature.Provisioner)
		if !ok {
			continue
		}
		g = append(g, step{f.Name(), func(ctx context.Context, report feature.Report) error {
			warning, err := p.Provision(ctx, v, from, report)
			if warning != "" {
				job.Warn(warning)
			}
			if u, ok := f.(feature.Upper); ok && start && err == nil {
				err = u.Up(ctx, v, report)
			}
			return err
		}})
	}
	return g
}

// up lists the steps that every start needs. provisioned leaves out features that are provisioned just
// now: they come up with that.
func (m *Manager) up(v vm.VM, provisioned bool) group {
	var g group
	for _, f := range m.features {
		u, ok := f.(feature.Upper)
		if _, p := f.(feature.Provisioner); !ok || p && provisioned {
			continue
		}
		g = append(g, step{f.Name(), func(ctx context.Context, report feature.Report) error { return u.Up(ctx, v, report) }})
	}
	return g
}

// takeDown removes what records name, in reverse order of the features, goes on after an error and
// joins them. The hypervisor goes first: it holds the devices.
func (m *Manager) takeDown(ctx context.Context, records []vm.Record) error {
	var errs []error
	for _, r := range records {
		if r.Kind == vm.RecordProcess {
			errs = append(errs, around("release "+string(r.Kind), func() error { return m.hyper.Release(ctx, r) }))
		}
	}
	for i := len(m.features) - 1; i >= 0; i-- {
		rm, ok := m.features[i].(feature.Remover)
		if !ok {
			continue
		}
		for _, r := range records {
			if r.Kind == rm.Removes() {
				if err := around("remove "+string(r.Kind), func() error { return rm.Remove(ctx, r) }); err != nil {
					errs = append(errs, fmt.Errorf("remove %s %s: %w", r.Kind, r.Name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// blueprint asks every feature what it contributes.
func (m *Manager) blueprint(v vm.VM) (feature.Blueprint, error) {
	img, err := m.imageOf(v)
	if err != nil {
		return feature.Blueprint{}, err
	}
	return m.plan(v, img), nil
}

func (m *Manager) plan(v vm.VM, img image.Manifest) feature.Blueprint {
	b := feature.Blueprint{
		Image: img,
		Machine: vm.Machine{
			ID: v.ID, Dir: m.layout.Jail(v.ID), CID: v.Lease.CID,
		},
	}
	b.Hold(v.ID, vm.RecordDir, m.layout.VM(v.ID), vm.UntilDelete)
	b.Records = append(b.Records, m.processRecord(v.ID))
	for _, f := range m.features {
		f.Contribute(v, &b)
	}
	return b
}

// processRecord names a VM's hypervisor.
func (m *Manager) processRecord(id vm.ID) vm.Record {
	return vm.Record{VM: id, Kind: vm.RecordProcess, Name: string(m.tag) + "/" + string(id), Until: vm.UntilStop}
}

// running keeps the records that a start makes.
func running(records []vm.Record) []vm.Record {
	var out []vm.Record
	for _, r := range records {
		if r.Until == vm.UntilStop {
			out = append(out, r)
		}
	}
	return out
}
