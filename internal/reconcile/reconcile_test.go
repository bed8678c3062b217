package reconcile_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"banger/internal/fault"
	"banger/internal/reconcile"
	"banger/internal/vm"
)

const (
	boot = "this boot"
	id   = vm.ID("0123456789ab")
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func machine(s vm.State) vm.VM {
	v := vm.VM{ID: id, Name: "dev", State: s, Desired: vm.Running, Changed: noon}
	if s == vm.Running || s == vm.Paused || s == vm.Stopping {
		v.Process = &vm.Process{PID: 42, StartTime: 7, BootID: boot}
	}
	return v
}

func TestVM(t *testing.T) {
	described := func(v vm.VM, later time.Duration) *reconcile.Directory {
		v.Changed = v.Changed.Add(later)
		return &reconcile.Directory{Path: "/vms/" + string(v.ID), VM: v}
	}
	for name, c := range map[string]struct {
		state vm.State
		see   func(vm.VM, *reconcile.Seen)
		kind  reconcile.Kind // empty: nothing is wrong
		says  string         // of what mends it
	}{
		"stopped":               {vm.Stopped, nil, "", ""},
		"running":               {vm.Running, func(_ vm.VM, s *reconcile.Seen) { s.Held, s.Alive = true, true }, "", ""},
		"half a create":         {vm.Creating, nil, reconcile.Interrupted, "undo it"},
		"half a start":          {vm.Starting, nil, reconcile.Interrupted, "undo it"},
		"half a delete":         {vm.Deleting, nil, reconcile.Interrupted, "finish it"},
		"half a way back":       {vm.Restoring, func(_ vm.VM, s *reconcile.Seen) { s.Directory, s.InTrash = nil, true }, reconcile.Interrupted, "finish it"},
		"not held":              {vm.Running, func(_ vm.VM, s *reconcile.Seen) { s.Alive = true }, reconcile.Adrift, "take it back"},
		"paused, not held":      {vm.Paused, func(_ vm.VM, s *reconcile.Seen) { s.Alive = true }, reconcile.Adrift, "take it back"},
		"gone":                  {vm.Running, nil, reconcile.Ended, "call it crashed: its hypervisor ended while no daemon was watching"},
		"gone with the host":    {vm.Running, func(_ vm.VM, s *reconcile.Seen) { s.BootID = "another" }, reconcile.Ended, "call it stopped: the host was restarted"},
		"gone while stopping":   {vm.Stopping, nil, reconcile.Ended, "call it stopped: its stop was interrupted by the daemon's end"},
		"gone, and not settled": {vm.Running, func(_ vm.VM, s *reconcile.Seen) { s.Held, s.Gone = true, true }, reconcile.Ended, "settle it"},
		"ailing": {vm.Running, func(_ vm.VM, s *reconcile.Seen) {
			s.Held, s.Alive, s.Ails = true, true, fault.New(fault.Corrupt, "its root overlay is lost")
		}, reconcile.Ailing, "have its state say so"},
		"ailing as it says": {vm.Running, func(v vm.VM, s *reconcile.Seen) {
			s.Held, s.Alive, s.Ails = true, true, fault.New(fault.Corrupt, "%s", v.Reason)
		}, "", ""},
		"half a stop":          {vm.Stopping, func(_ vm.VM, s *reconcile.Seen) { s.Held, s.Alive = true, true }, reconcile.Interrupted, "finish it"},
		"no records":           {vm.Running, func(_ vm.VM, s *reconcile.Seen) { s.Recorded = false }, reconcile.Unrecorded, "record it again"},
		"a newer description":  {vm.Stopped, func(v vm.VM, s *reconcile.Seen) { s.Directory = described(v, time.Second) }, reconcile.Outdated, "take in what its directory says"},
		"an older description": {vm.Stopped, func(v vm.VM, s *reconcile.Seen) { s.Directory = described(v, -time.Second) }, reconcile.Undescribed, "write it"},
		"no description":       {vm.Crashed, func(_ vm.VM, s *reconcile.Seen) { s.Directory.Err = errors.New("no such file") }, reconcile.Undescribed, "write it"},
		"a description of a newer banger": {vm.Stopped, func(_ vm.VM, s *reconcile.Seen) {
			s.Directory.Err = fault.New(fault.Incompatible, "it has schema 9")
		}, reconcile.Undescribed, ""},
		"in the trash": {vm.Stopped, func(_ vm.VM, s *reconcile.Seen) { s.Directory, s.InTrash = nil, true }, reconcile.Trashed, "forget it; the trash keeps it"},
		"nowhere":      {vm.Stopped, func(_ vm.VM, s *reconcile.Seen) { s.Directory = nil }, reconcile.Bodiless, ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := machine(c.state)
			s := reconcile.Seen{BootID: boot, Recorded: true, Directory: described(v, 0)}
			if c.see != nil {
				c.see(v, &s)
			}
			f, wrong := reconcile.VM(v, s)
			if f.Kind != c.kind || f.Repair != c.says || wrong != (c.kind != "") {
				t.Errorf("got %q, to be mended by %q; want %q, %q", f.Kind, f.Repair, c.kind, c.says)
			}
			if wrong && (f.VM != id || f.Subject != "VM dev" || f.Why == "") {
				t.Errorf("got %+v", f)
			}
			if wrong && f.Repair == "" && f.Hint == "" {
				t.Error("nobody is told what to do")
			}
		})
	}
}

func TestOrphans(t *testing.T) {
	tap := func(name string) vm.Record { return vm.Record{Kind: vm.RecordTAP, Name: name} }
	process := vm.Record{VM: id, Kind: vm.RecordProcess, Name: "ab12/0123456789ab"}
	held := tap("btab12-11111111")
	held.VM = "111111111111" // whose a device is, only the record knows
	got := reconcile.Orphans([]vm.Record{tap("btab12-33333333"), tap("btab12-11111111"), tap("btab12-22222222"), process}, []vm.Record{held}, []vm.Record{tap("btab12-22222222")})
	var subjects []string
	for _, f := range got {
		subjects = append(subjects, f.Subject)
	}
	if want := "process ab12/0123456789ab, tap btab12-33333333"; strings.Join(subjects, ", ") != want {
		t.Errorf("got %q, want %q", subjects, want)
	}
	if got[0].Record != process || got[0].VM != id {
		t.Errorf("got %+v", got[0])
	}
}

func TestStranger(t *testing.T) {
	f := reconcile.Stranger(reconcile.Directory{Path: "/vms/x", VM: machine(vm.Running)}, true)
	if f.Why != "the database knows no VM of this directory, which runs" || f.Hint != "take it back with `banger repair adopt 0123456789ab`" || f.Repair != "" {
		t.Errorf("got %+v", f)
	}
	f = reconcile.Stranger(reconcile.Directory{Path: "/vms/x", Err: errors.New("it is damaged")}, false)
	if f.Why != "the database knows no VM of this directory, and it does not say which: it is damaged" || f.Hint == "" || f.VM != "" {
		t.Errorf("got %+v", f)
	}
}
