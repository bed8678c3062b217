// Package others has the other firewalls of a host let pass what VMs send through it. What one table accepts another may
// still drop, so where Docker, ufw or firewalld drops what the host forwards, an accept of the instance's own is put in the
// place that each documents for it. It is known by its name, the instance's first bridge, so it can be found and removed
// without memory, and does no more than undo the drop: what guests may do is for the instance's own tables to say.
package others

import (
	"context"
	"errors"
	"strings"
	"sync"

	"banger/internal/fault"
	"banger/internal/host/exec"
	"banger/internal/vm"
)

// Runner runs a program to its end.
type Runner interface {
	Run(ctx context.Context, c exec.Command) (exec.Result, error)
}

// Others is the other firewalls of the host, seen from one instance. What it looks at is of the calling thread's network
// namespace.
type Others struct {
	run  Runner
	root string // of the host's files
	name string // of the accepts
	all  []place

	mu sync.Mutex // two that look at once would both add what is missing
}

// New returns those of the host whose files are below root. The programs that change them are run by run.
func New(tag vm.Tag, run Runner, root string) *Others {
	o := &Others{run: run, root: root, name: tag.Bridge(0)}
	o.all = []place{o.docker(family4), o.docker(family6), o.ufw(), o.firewalld()}
	return o
}

// place is where one firewall takes an accept.
type place struct {
	firewall string // as people know it
	where    string // the place's name there
	rules    string // what stands there, for people
	// look tells how many of its rules the place has of how many; none of none where the firewall is not there or drops
	// nothing. It does not change the host.
	look   func(ctx context.Context) (has, of int, err error)
	add    func(ctx context.Context) error // what is missing
	remove func(ctx context.Context) error // what is there
}

// Accept is an accept in another's firewall.
type Accept struct {
	Firewall string // whose
	Where    string // its place there
	Name     string // by which it is known
	Rules    string
	There    bool
}

// List tells what each other firewall that there is has of the instance.
func (o *Others) List(ctx context.Context) ([]Accept, error) {
	var out []Accept
	err := o.each(ctx, func(p place, has, of int) error {
		out = append(out, Accept{Firewall: p.firewall, Where: p.where, Name: o.name, Rules: p.rules, There: has == of})
		return nil
	})
	return out, err
}

// Ensure puts the accepts where they are missing, and names the firewalls in which they were.
func (o *Others) Ensure(ctx context.Context) (added []string, err error) {
	err = o.each(ctx, func(p place, has, of int) error {
		if has == of {
			return nil
		}
		if err := p.add(ctx); err != nil {
			return err
		}
		added = append(added, p.firewall)
		return nil
	})
	return added, err
}

// Remove takes the accepts away, and names the firewalls in which they were. Gone is success.
func (o *Others) Remove(ctx context.Context) (removed []string, err error) {
	err = o.each(ctx, func(p place, has, _ int) error {
		if has == 0 {
			return nil
		}
		if err := p.remove(ctx); err != nil {
			return err
		}
		removed = append(removed, p.firewall)
		return nil
	})
	return removed, err
}

// each does something about each firewall that is there, and goes on after one that fails.
func (o *Others) each(ctx context.Context, do func(p place, has, of int) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, p := range o.all {
		has, of, err := p.look(ctx)
		if err == nil && of == 0 {
			continue
		}
		if err == nil {
			err = do(p, has, of)
		}
		if err != nil {
			errs = append(errs, fault.New(fault.Internal, "%w", err).WithOp("let VMs through "+p.firewall, p.where).
				WithHint("guests get out once it has %s", p.rules))
		}
	}
	return errors.Join(errs...)
}

// program runs one and returns what it printed.
func (o *Others) program(ctx context.Context, argv ...string) (string, error) {
	res, err := o.run.Run(ctx, exec.Command{Argv: argv, Env: []string{"LC_ALL=C"}})
	return string(res.Stdout), err
}

// change is a change of a place by one program.
func (o *Others) change(argv ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := o.program(ctx, argv...)
		return err
	}
}

// quote is a command line for people.
func quote(argv ...string) string { return "`" + strings.Join(argv, " ") + "`" }
