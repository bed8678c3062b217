// Package event holds the news of what has changed: which there are, who may see them, and how they
// follow from two states of a thing. Nothing here performs I/O.
package event

import (
	"maps"
	"strings"
	"time"

	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/vm"
)

// Kind says what happened.
type Kind string

// The kinds. A VM that comes into a state is told of as "vm." and the state, unless it is new.
const (
	VMCreated  Kind = "vm.created" // its create has begun
	VMDeleted  Kind = "vm.deleted"
	VMRestored Kind = "vm.restored" // it came back with its disks
	VMRenamed  Kind = "vm.renamed"
	VMSet      Kind = "vm.set"    // what its owner asked for has changed
	VMAils     Kind = "vm.ailing" // it runs, and what it has does not serve it any more

	OperationBegan Kind = "operation.began"
	OperationEnded Kind = "operation.ended"

	ImageAdded   Kind = "image.added"
	ImageRemoved Kind = "image.removed"

	DaemonStarted Kind = "daemon.started"
	DaemonEnded   Kind = "daemon.ended" // in order; one that was killed leaves none

	// Gap stands for events that are no longer kept, or for all that a lost database had. It is never stored.
	Gap Kind = "gap"
)

// Everyone is the owner of what all may see.
const Everyone = -1

// Event is one change. It is stored and sent as JSON: fields are only ever added.
type Event struct {
	ID        int64      `json:"id"` // increasing from 1, without holes
	Time      time.Time  `json:"time"`
	Kind      Kind       `json:"kind"`
	Owner     int        `json:"owner"` // uid of whose it is; Everyone for what is nobody's
	VM        vm.ID      `json:"vm,omitempty"`
	Image     string     `json:"image,omitempty"` // id
	Name      string     `json:"name,omitempty"`  // of the VM or the image
	State     vm.State   `json:"state,omitempty"` // that the VM came into
	Was       string     `json:"was,omitempty"`   // its name before
	Changed   []string   `json:"changed,omitempty"`
	Reason    string     `json:"reason,omitempty"` // why, in one line
	Operation *Operation `json:"operation,omitempty"`
}

// Operation is what an event tells of an operation.
type Operation struct {
	ID    op.ID    `json:"id"`
	Kind  string   `json:"kind"`
	State op.State `json:"state"`
}

// Page is a part of the events that are kept.
type Page struct {
	Events []Event // oldest first; a gap stands before all others
	Next   int64   // all up to this id have been looked at
	More   bool    // there may be others already
}

// SeenBy reports whether the caller may know of it.
func (e Event) SeenBy(c vm.Caller) bool { return e.Owner == Everyone || c.Sees(e.Owner) }

// OfArrival tells of a VM that was not there before: made, or taken back with its disks.
func OfArrival(v vm.VM) Event {
	kind := VMRestored
	if v.State == vm.Creating {
		kind = VMCreated
	}
	e := ofVM(kind, v)
	e.State = v.State
	return e
}

// OfRemoval tells of a VM that is no longer there.
func OfRemoval(v vm.VM) Event { return ofVM(VMDeleted, v) }

func ofVM(kind Kind, v vm.VM) Event {
	return Event{Kind: kind, Owner: v.Owner, VM: v.ID, Name: v.Name}
}

// OfChange tells what is different about a VM.
func OfChange(before, after vm.VM) []Event {
	var out []Event
	if before.Name != after.Name {
		e := ofVM(VMRenamed, after)
		e.Was = before.Name
		out = append(out, e)
	}
	if changed := wishes(before, after); len(changed) > 0 {
		e := ofVM(VMSet, after)
		e.Changed = changed
		out = append(out, e)
	}
	if before.State != after.State {
		e := ofVM("vm."+Kind(after.State), after)
		e.State = after.State
		if before.Reason != after.Reason { // else it says why it was in the state before
			e.Reason = after.Reason
		}
		out = append(out, e)
	} else if after.State == vm.Running && after.Reason != "" && before.Reason != after.Reason {
		e := ofVM(VMAils, after)
		e.Reason = after.Reason
		out = append(out, e)
	}
	return out
}

// wishes names what the owner asks for that has changed, as its JSON does.
func wishes(before, after vm.VM) []string {
	var out []string
	for _, w := range []struct {
		name    string
		differs bool
	}{
		{"labels", !maps.Equal(before.Labels, after.Labels)},
		{"vcpu", before.Spec.VCPU != after.Spec.VCPU},
		{"memory", before.Spec.Memory != after.Spec.Memory},
		{"root_disk", before.Spec.RootDisk != after.Spec.RootDisk},
		{"work_disk", before.Spec.WorkDisk != after.Spec.WorkDisk},
		{"restart", before.Restart != after.Restart},
		{"settings", !maps.Equal(before.Settings, after.Settings)},
	} {
		if w.differs {
			out = append(out, w.name)
		}
	}
	return out
}

// OfOperation tells that an operation has begun, that it has ended, or both where nothing was known of it
// and before is empty.
func OfOperation(before op.State, o op.Operation) []Event {
	e := Event{Owner: o.Owner, Name: o.Name, Operation: &Operation{ID: o.ID, Kind: o.Kind, State: op.Underway}}
	if strings.HasPrefix(o.Kind, "vm.") {
		e.VM = vm.ID(o.Subject)
	}
	var out []Event
	if before == "" {
		e.Kind = OperationBegan
		out = append(out, e)
	}
	if o.State.Ended() && before != o.State { // one that ended well may yet fail to describe what it did, which undoes it
		e.Kind, e.Operation = OperationEnded, &Operation{ID: o.ID, Kind: o.Kind, State: o.State}
		if o.Error != nil {
			e.Reason = o.Error.Error()
		}
		out = append(out, e)
	}
	return out
}

// OfImage tells that an image was added or removed.
func OfImage(kind Kind, m image.Manifest) Event {
	return Event{Kind: kind, Owner: Everyone, Image: m.ID, Name: m.Name}
}

// OfDaemon tells that the daemon has started or ends.
func OfDaemon(kind Kind, reason string) Event {
	return Event{Kind: kind, Owner: Everyone, Reason: reason}
}

// OfGap tells that what came before the event after this id cannot be told any more.
func OfGap(id int64, at time.Time) Event {
	return Event{ID: id, Time: at, Kind: Gap, Owner: Everyone, Reason: "what happened before is no longer kept"}
}
