package lifecycle_test

import (
	"strings"
	"sync"
	"testing"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

// refused checks an admission's refusal, and that nothing was made.
func (w *world) refused(err error, want string) {
	w.t.Helper()
	f := fault.From(err)
	if !fault.Is(err, fault.Exhausted) || f.Error() != want || f.Hint == "" {
		w.t.Errorf("got %v (%s)\nwant %s", err, fault.CodeOf(err), want)
	}
}

func TestWhatTheHostCannotTakeIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		room  func(*hosttest.Room)
		rules admission.Rules
		root  vm.RootBackend
		want  string
		lack  string
	}{
		"memory": {
			lack: "memory",
			room: func(r *hosttest.Room) { r.Memory = 2 * vm.GiB },
			want: "its 1 GiB of memory do not fit: 1 other running VM has 1 GiB of the 1.9 GiB that this host has for VMs",
		},
		"a full disk": {
			lack: "disk",
			room: func(r *hosttest.Room) { r.Space = admission.Space{Free: vm.GiB, Size: 100 * vm.GiB} },
			want: "the disk is below its low-water mark: 1 GiB are free, the mark is at 5 GiB",
		},
		"a copy of the image": {
			lack: "disk",
			room: func(r *hosttest.Room) {
				r.Space = admission.Space{Free: 6 * vm.GiB, Size: 100 * vm.GiB}
				r.Copies, r.File = true, vm.GiB
			},
			want: "its disks take 2 GiB at once, and 1 GiB are left above the low-water mark of 5 GiB",
		},
		"a copy by configuration": {
			lack: "disk",
			root: vm.RootCopy,
			room: func(r *hosttest.Room) {
				r.Space = admission.Space{Free: 6 * vm.GiB, Size: 100 * vm.GiB}
				r.File = 2 * vm.GiB
			},
			want: "its disks take 2 GiB at once, and 1 GiB are left above the low-water mark of 5 GiB",
		},
		"a device over the image": {
			lack: "disk",
			root: vm.RootSnapshot,
			room: func(r *hosttest.Room) {
				r.Space = admission.Space{Free: 6 * vm.GiB, Size: 100 * vm.GiB}
				r.Copies, r.File = true, 2*vm.GiB
			},
			want: "its disks take 2 GiB at once, and 1 GiB are left above the low-water mark of 5 GiB",
		},
		"quota": {
			lack:  "quota",
			rules: admission.Rules{Quota: admission.Quota{VMs: 1}},
			want:  "it would be VM number 2 of uid 1000, who may have 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.root = c.root
			w.boot()
			w.must(w.create("first"))
			w.m.Rules = c.rules
			if c.room != nil {
				w.host.SetRoom(c.room)
			}
			w.host.FailAt(0)
			var lacks []string
			w.m.Refused = func(lack string) { lacks = append(lacks, lack) }
			w.refused(w.create("dev"), `create VM "dev": `+c.want)
			if len(lacks) != 1 || lacks[0] != c.lack {
				t.Errorf("counted was a lack of %v, want %s", lacks, c.lack)
			}
			if made := w.host.Effects(); len(made) > 0 {
				t.Errorf("made before the refusal: %v", made)
			}
		})
	}
}

func TestAStartIsAdmittedToo(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("first"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "first", 0)))
	w.must(w.create("dev"))
	start := func() error { return w.end(w.m.Start(t.Context(), alice, "first")) }

	w.host.SetRoom(func(r *hosttest.Room) { r.Memory = 2 * vm.GiB })
	w.refused(start(), `start VM "first": its 1 GiB of memory do not fit: 1 other running VM has 1 GiB of the 1.9 GiB that this host has for VMs`)
	w.host.Plenty()
	w.host.SetRoom(func(r *hosttest.Room) { r.Space = admission.Space{Free: vm.GiB, Size: 100 * vm.GiB} })
	w.refused(start(), `start VM "first": the disk is below its low-water mark: 1 GiB are free, the mark is at 5 GiB`)
	w.host.Plenty()
	w.m.Rules.Quota = admission.Quota{VMs: 1, VCPU: 3, Disk: 1} // what is there already is not held against it
	w.refused(start(), `start VM "first": the running VMs of uid 1000 would have 4 vCPUs, and may have 3`)
	if v := w.find("first"); v.State != vm.Stopped || v.Reason != "the last start failed: the running VMs of uid 1000 would have 4 vCPUs, and may have 3" {
		t.Errorf("it is %s: %s", v.State, v.Reason)
	}
	w.m.Rules.Quota.VCPU = 4
	w.must(start())
	if v := w.find("first"); v.Reason != "" {
		t.Errorf("it runs: %s", v.Reason)
	}
}

// TestARebootThatIsNotAdmitted is one of a guest whose room was taken away.
func TestARebootThatIsNotAdmitted(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("dev"))
	w.host.SetRoom(func(r *hosttest.Room) { r.Memory = vm.GiB })
	w.refused(w.ends(lifecycle.KindEnded, (*hosttest.Host).Reboot), `settle VM "dev": its 1 GiB of memory do not fit: this host has 960 MiB for VMs`)
	v := w.find("dev")
	if v.State != vm.Stopped || !strings.HasPrefix(v.Reason, "the last start failed: its 1 GiB of memory do not fit") {
		t.Errorf("it is %s: %s", v.State, v.Reason)
	}
	w.holds(w.stoppedText("dev")...)
}

// TestTheLastMemoryIsGivenOnce lets many creates and starts come at once where there is room for one.
func TestTheLastMemoryIsGivenOnce(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"s1", "s2", "s3"} {
		w.must(w.create(name))
		w.must(w.end(w.m.Stop(t.Context(), alice, name, 0)))
	}
	w.host.SetRoom(func(r *hosttest.Room) { r.Memory = 1300 * vm.MiB })
	var wg sync.WaitGroup
	results := make(chan error, 9)
	for range 6 {
		wg.Go(func() {
			results <- w.end(w.m.Create(t.Context(), alice, lifecycle.CreateRequest{}))
		})
	}
	for _, name := range []string{"s1", "s2", "s3"} {
		wg.Go(func() { results <- w.end(w.m.Start(t.Context(), alice, name)) })
	}
	wg.Wait()
	close(results)
	admitted := 0
	for err := range results {
		switch {
		case err == nil:
			admitted++
		case !fault.Is(err, fault.Exhausted):
			t.Error(err)
		}
	}
	if admitted != 1 {
		t.Errorf("%d were admitted", admitted)
	}
}

func TestWhatMayBecomeTooMuchIsWarnedOf(t *testing.T) {
	w := newWorld(t)
	w.must(w.create("first"))
	w.host.SetRoom(func(r *hosttest.Room) {
		r.Space = admission.Space{Free: 20 * vm.GiB, Size: 100 * vm.GiB}
		r.File = 2 * vm.GiB // each of first's disks
	})
	o, err := w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "dev"})
	w.must(w.end(o, err))
	if len(o.Warnings) != 0 {
		t.Errorf("5 GiB of first and 9 of its own do fit: %v", o.Warnings)
	}
	o, err = w.m.Create(t.Context(), alice, lifecycle.CreateRequest{Name: "more"})
	w.must(w.end(o, err))
	if len(o.Warnings) != 1 || !strings.HasPrefix(o.Warnings[0], "if all VMs filled their disks, these would take 19 GiB more; 15 GiB are left above") {
		t.Errorf("warned of %v", o.Warnings)
	}
	kept, err := w.store.Operation(t.Context(), o.ID)
	if err != nil || len(kept.Warnings) != 1 || kept.State != op.Done {
		t.Errorf("the stored operation: %+v, %v", kept, err)
	}
}

// TestARestoredVMCountsAgain lets a quota be no way to have more by way of the trash.
func TestARestoredVMCountsAgain(t *testing.T) {
	w := newWorld(t)
	w.m.Rules.Quota = admission.Quota{VMs: 1}
	w.must(w.create("dev"))
	w.trash("dev")
	w.must(w.create("next"))
	w.refused(w.end(w.m.Restore(t.Context(), alice, "dev", "")), `restore VM "dev": it would be VM number 2 of uid 1000, who may have 1`)
	w.trash("next")
	w.must(w.end(w.m.Restore(t.Context(), alice, "dev", "")))
}
