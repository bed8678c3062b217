// Package reconcile compares what the store says with what the host has, and tells what to do about each difference.
// It is pure: what was seen comes in, findings go out, and package lifecycle acts on them.
package reconcile

import (
	"cmp"
	"fmt"
	"slices"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Kind says what sort of difference it is, and so what mends it.
type Kind string

// The kinds.
const (
	Interrupted Kind = "interrupted" // a verb was cut short: it is finished or undone
	Adrift      Kind = "adrift"      // its hypervisor lives, and this daemon has no hold of it: it is taken back
	Ended       Kind = "ended"       // its hypervisor has gone unnoticed: it is brought to rest
	Outdated    Kind = "outdated"    // its description is newer than the database: the description is taken in
	Ailing      Kind = "ailing"      // it runs, and what it has does not serve it any more: its state says so
	Undescribed Kind = "undescribed" // its description is missing or older: it is written
	Unrecorded  Kind = "unrecorded"  // nothing says what it holds: its records are made again
	Trashed     Kind = "trashed"     // its directory is in the trash: the database forgets it
	Bodiless    Kind = "bodiless"    // its directory is nowhere: that is only told
	Orphan      Kind = "orphan"      // something of this instance that no VM holds: it is removed
	Unknown     Kind = "unknown"     // a directory that the database does not know: that is only told
)

// Nobody is the owner of what is not a VM's.
const Nobody = -1

// Finding is one difference.
type Finding struct {
	Kind    Kind
	VM      vm.ID     // empty where it is about none
	Name    string    // of the VM
	Owner   int       // of the VM; Nobody where it is not known to be anybody's
	Subject string    // what it is about: a VM, a device, a directory
	Why     string    // what was seen
	Repair  string    // what mends it; empty where nobody but its user can
	Hint    string    // what its user can do
	Record  vm.Record // that would have named it, of an orphan
	As      vm.VM     // the VM as it is to be, where it has ended unseen or is outdated
}

// Directory is a directory among those of VMs, as it describes itself.
type Directory struct {
	Path string
	VM   vm.VM
	Err  error // why it cannot be read
}

// Seen is what was seen of one VM that the store knows, while nothing else was done to it.
type Seen struct {
	Held      bool   // this daemon holds its hypervisor
	Gone      bool   // this daemon has seen that hypervisor end
	Alive     bool   // its hypervisor lives
	BootID    string // of the host's kernel, as in vm.Process
	Ails      error  // what it has on the host does not serve it any more
	Recorded  bool   // the store says what it holds
	Directory *Directory
	InTrash   bool // the trash has a directory of its id
}

// VM tells what is wrong with a VM that the store knows; false when nothing is. One thing is mended at a time: what else
// is wrong is seen on the next look.
func VM(v vm.VM, s Seen) (Finding, bool) {
	f := Finding{VM: v.ID, Name: v.Name, Owner: v.Owner, Subject: "VM " + v.Name}
	as := func(k Kind, why, repair string) (Finding, bool) {
		f.Kind, f.Why, f.Repair = k, why, repair
		return f, true
	}
	described := s.Directory != nil && s.Directory.Err == nil
	if described && s.Directory.VM.Changed.After(v.Changed) {
		f.As = s.Directory.VM
		return as(Outdated, "the database is older than what its directory says of it", "take in what its directory says")
	}
	if !s.Recorded {
		return as(Unrecorded, "nothing says what it holds on the host", "record it again")
	}
	switch v.State {
	case vm.Creating:
		return as(Interrupted, "its create was cut short, and nobody was given it", "undo it")
	case vm.Deleting:
		return as(Interrupted, "its delete was cut short", "finish it")
	case vm.Restoring:
		return as(Interrupted, "its way back from the trash was cut short", "finish it")
	case vm.Starting:
		return as(Interrupted, "its start was cut short", "undo it")
	case vm.Running, vm.Paused, vm.Stopping:
		if s.Held && s.Gone {
			return as(Ended, "it is "+string(v.State)+", its hypervisor has ended, and nothing came of that", "settle it")
		}
		if !s.Held && s.Alive {
			return as(Adrift, "its hypervisor lives, and no daemon holds it", "take it back")
		}
		if !s.Held {
			f.As = rested(v, s.BootID)
			return as(Ended, "it is "+string(v.State)+", and its hypervisor has gone", "call it "+string(f.As.State)+": "+f.As.Reason)
		}
		if v.State == vm.Stopping {
			return as(Interrupted, "its stop was cut short", "finish it")
		}
		if why := fault.From(s.Ails); why != nil && v.State == vm.Running && v.Reason != why.Msg {
			f.As, f.Hint = v, why.Hint
			f.As.Reason = why.Msg
			return as(Ailing, why.Msg, "have its state say so")
		}
	case vm.Stopped, vm.Crashed:
	}
	switch {
	case s.Directory == nil && s.InTrash:
		return as(Trashed, "its directory is in the trash", "forget it; the trash keeps it")
	case s.Directory == nil:
		f.Hint = fmt.Sprintf("put its directory back, or forget it with `banger vm delete %s`", v.Name)
		return as(Bodiless, "its directory is gone", "")
	case fault.Is(s.Directory.Err, fault.Incompatible):
		f.Hint = "install the banger that wrote it"
		return as(Undescribed, s.Directory.Err.Error(), "")
	case !described || !s.Directory.VM.Changed.Equal(v.Changed):
		return as(Undescribed, "its vm.json is missing or older than the database", "write it")
	}
	return Finding{}, false
}

// rested is a VM whose hypervisor has gone while nobody watched.
func rested(v vm.VM, bootID string) vm.VM {
	switch {
	case v.State == vm.Stopping:
		v.State, v.Desired, v.Reason = vm.Stopped, vm.Stopped, "its stop was interrupted by the daemon's end"
	case v.Process == nil || v.Process.BootID != bootID:
		v.State, v.Reason = vm.Stopped, "the host was restarted"
	default:
		v.State, v.Reason = vm.Crashed, "its hypervisor ended while no daemon was watching"
	}
	return v
}

// Orphans lists what there is of this instance on the host that neither a record names nor a VM would hold whose
// directory the database does not know: whoever adopts that has it back as it was, running if it runs.
func Orphans(found, records, adoptable []vm.Record) []Finding {
	type thing struct {
		kind vm.RecordKind
		name string
	}
	held := map[thing]bool{}
	for _, r := range slices.Concat(records, adoptable) {
		held[thing{r.Kind, r.Name}] = true
	}
	var out []Finding
	for _, r := range found {
		if !held[thing{r.Kind, r.Name}] {
			out = append(out, Finding{
				Kind: Orphan, VM: r.VM, Owner: Nobody, Subject: string(r.Kind) + " " + r.Name, Record: r,
				Why: "it bears this instance's mark, and no VM holds it", Repair: "remove it",
			})
		}
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Subject, b.Subject) })
	return out
}

// Stranger tells of a directory that the database does not know.
func Stranger(d Directory, alive bool) Finding {
	f := Finding{Kind: Unknown, Owner: Nobody, Subject: "directory " + d.Path, Why: "the database knows no VM of this directory"}
	if d.Err != nil {
		f.Why += ", and it does not say which: " + d.Err.Error()
		f.Hint = "a VM's disks are root.ext4 (or root.cow) and work.ext4 in its folder jail"
		return f
	}
	f.VM, f.Name, f.Owner = d.VM.ID, d.VM.Name, d.VM.Owner
	if alive {
		f.Why += ", which runs"
	}
	f.Hint = fmt.Sprintf("take it back with `banger repair adopt %s`", d.VM.ID)
	return f
}
