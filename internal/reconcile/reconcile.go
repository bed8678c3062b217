// Package reconcile compares what is committed of VMs with what the host has, and says what to do where they differ.
// It is pure: whoever applies a finding looks again under the VM's lock first, since a verb may have come between.
//
// What it calls ours is proven by the instance's tag, which names bear that nothing else makes, or by a commit. It has
// no finding about anything else, and none that removes a VM's directory.
package reconcile

import (
	"cmp"
	"fmt"
	"slices"

	"banger/internal/vm"
)

// Kind says what differs. It is part of the API.
type Kind string

// The kinds, in the order in which they are mended.
const (
	Unrecorded  Kind = "unrecorded"  // a VM has no records, as after its database was made anew
	Interrupted Kind = "interrupted" // a verb was cut short
	Unheld      Kind = "unheld"      // a VM's hypervisor runs, and this daemon has no hold of it
	Ended       Kind = "ended"       // a VM is said to run, and its hypervisor has ended
	Undescribed Kind = "undescribed" // a VM's vm.json does not say what is committed
	Orphan      Kind = "orphan"      // the kernel holds something of this instance that no VM holds
	Lost        Kind = "lost"        // a VM's directory is gone
	Unknown     Kind = "unknown"     // no VM has this directory
)

// Finding is one difference.
type Finding struct {
	Kind   Kind      `json:"kind"`
	VM     vm.ID     `json:"vm,omitempty"`
	Name   string    `json:"name,omitempty"`   // of the VM
	Owner  int       `json:"-"`                // of the VM
	Object vm.Record `json:"-"`                // what is to be removed
	Path   string    `json:"path,omitempty"`   // of the directory that it is about
	What   string    `json:"what"`             // is the case
	Proof  string    `json:"proof"`            // that it is this instance's
	Repair string    `json:"repair,omitempty"` // what is done about it; empty when that is left to people
	Hint   string    `json:"hint,omitempty"`   // what people can do
}

// Facts are what is known of one committed VM.
type Facts struct {
	VM        vm.VM
	Recorded  bool   // it has records
	Held      bool   // this daemon holds its hypervisor, which has not ended as far as it knows
	Alive     bool   // the very process that is committed runs
	Directory bool   // it has one
	Described bool   // its vm.json says what is committed
	Dir       string // where its directory is, or should be
}

// Of says what is wrong with one VM that no verb is at work on.
func Of(f Facts) []Finding {
	v := f.VM
	var all []Finding
	add := func(k Kind, repair, what string, args ...any) {
		all = append(all, Finding{
			Kind: k, VM: v.ID, Name: v.Name, Owner: v.Owner, Path: f.Dir,
			What: fmt.Sprintf(what, args...), Proof: "it is a VM of this instance's database", Repair: repair,
		})
	}
	if !f.Recorded {
		add(Unrecorded, "note them again", "nothing is noted of what it holds")
	}
	switch v.State {
	case vm.Creating, vm.Deleting:
		add(Interrupted, "remove what there is of it", "it is %s, and nobody is at it", v.State)
		return all // the rest goes with it
	case vm.Restoring:
		add(Interrupted, "finish it", "it is %s, and nobody is at it", v.State)
		return all
	case vm.Starting:
		add(Interrupted, "take down what was begun", "it is %s, and nobody is at it", v.State)
	case vm.Running, vm.Paused, vm.Stopping:
		switch {
		case f.Held && v.State == vm.Stopping:
			add(Interrupted, "finish it", "it is %s, and nobody is at it", v.State)
		case f.Held:
		case f.Alive:
			add(Unheld, "take it back", "its hypervisor runs as process %d, and this daemon has no hold of it", v.Process.PID)
			all[len(all)-1].Hint = fmt.Sprintf("`banger vm kill %s` ends it", v.Name)
		default:
			add(Ended, "take its devices down, and say how it ended", "it is said to be %s, and its hypervisor has ended", v.State)
		}
	case vm.Stopped, vm.Crashed:
	}
	switch {
	case !f.Directory:
		add(Lost, "", "its directory is gone, and its disks with it")
		all[len(all)-1].Hint = fmt.Sprintf("put it back from a backup, or remove what is left of the VM: `banger vm delete --now %s`", v.Name)
	case !f.Described && len(all) == 0: // else mending the others describes it
		add(Undescribed, "write it anew", "its vm.json does not say what the database does")
	}
	return all
}

// World is what is compared as a whole, beyond single VMs.
type World struct {
	Tag     vm.Tag
	VMs     []vm.VM
	Records []vm.Record
	Objects []vm.Record // what the kernel holds that bears the instance's tag; VM is empty where that is not known
	Dirs    []Dir       // what lies where VM directories do
}

// Dir is something where VM directories are.
type Dir struct {
	Path string
	ID   vm.ID  // what it is called
	Name string // of the VM, as its vm.json says; empty when that cannot be read
	Why  string // it cannot be read
	// Owner is that of the VM. What cannot be read is root's.
	Owner int
}

// Strays finds what belongs to no VM. Objects must have been looked at before Records, which are committed before
// anything is made: then what is not in them is nobody's.
func (w World) Strays() []Finding {
	known := map[vm.ID]bool{}
	for _, v := range w.VMs {
		known[v.ID] = true
	}
	var all []Finding
	unknown := map[vm.ID]bool{}
	taps := map[string]bool{}
	for _, d := range w.Dirs {
		if known[d.ID] {
			continue
		}
		all = append(all, stray(d))
		if d.ID.Valid() {
			unknown[d.ID], taps[d.ID.TAP(w.Tag)] = true, true
		}
	}
	type object struct {
		kind vm.RecordKind
		name string
	}
	recorded := map[object]bool{}
	for _, r := range w.Records {
		recorded[object{r.Kind, r.Name}] = true
	}
	for _, o := range w.Objects {
		// A directory that is unknown may be of a VM that runs, whose guest has not written everything yet.
		if recorded[object{o.Kind, o.Name}] || unknown[o.VM] || o.Kind == vm.RecordTAP && taps[o.Name] {
			continue
		}
		all = append(all, Finding{
			Kind: Orphan, VM: o.VM, Object: o, Name: o.Name, What: words(o.Kind) + ", which no VM holds",
			Proof: fmt.Sprintf("its name bears this instance's tag %s", w.Tag), Repair: "remove it",
		})
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Path, b.Path))
	})
	return all
}

func stray(d Dir) Finding {
	f := Finding{
		Kind: Unknown, VM: d.ID, Name: d.Name, Owner: d.Owner, Path: d.Path, What: "no VM has this directory",
		Proof: "it is where VM directories are", Hint: fmt.Sprintf("`banger repair adopt %s` takes it back; it is never removed", d.ID),
	}
	if d.Why != "" {
		f.What += ": " + d.Why
		f.Hint = "put its vm.json right, or move it elsewhere; it is never removed"
	}
	if !d.ID.Valid() {
		f.VM = ""
	}
	return f
}

func words(k vm.RecordKind) string {
	switch k {
	case vm.RecordTAP:
		return "a network device"
	case vm.RecordProcess:
		return "a hypervisor's cgroup"
	case vm.RecordDir:
		return "a directory"
	}
	return string(k)
}
