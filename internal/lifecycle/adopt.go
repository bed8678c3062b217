package lifecycle

import (
	"context"
	"path"

	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/vm"
)

// Adopt takes back a VM of which there is a directory that the database does not know, under its name or another:
// stopped, or running where its hypervisor lives. selector is its id, a prefix of it, its name, or the directory's path.
func (m *Manager) Adopt(ctx context.Context, caller vm.Caller, selector, name string) (op.Operation, error) {
	unknown, unread, err := m.unknown(ctx)
	if err != nil {
		return op.Operation{}, err
	}
	selector = path.Base(selector)
	var seen []vm.VM
	for _, d := range unknown {
		if caller.Sees(d.VM.Owner) {
			seen = append(seen, d.VM)
		}
	}
	v, err := vm.Select(seen, selector)
	if fault.Is(err, fault.NotFound) {
		for _, d := range unread {
			if path.Base(d.Path) == selector && caller.UID == 0 {
				return op.Operation{}, fault.From(d.Err).InOp("adopt VM", selector)
			}
		}
		if known, err := m.Find(ctx, caller, selector); err == nil {
			return op.Operation{}, fault.New(fault.AlreadyExists, "the database knows it already").WithOp("adopt VM", known.Name).
				WithHint("see it with `banger vm show %s`", known.Name)
		}
		err = fault.New(fault.NotFound, "no unknown directory is this VM's").WithOp("adopt VM", selector).
			WithHint("run `banger repair --dry-run` to see what there is")
	}
	if err != nil {
		return op.Operation{}, err
	}
	return m.bringBack(ctx, caller, KindAdopt, v, name, func() error { return nil })
}
