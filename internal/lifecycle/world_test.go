package lifecycle_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/feature/bootset"
	"banger/internal/feature/compute"
	"banger/internal/feature/disk"
	"banger/internal/feature/door"
	"banger/internal/feature/identity"
	"banger/internal/feature/nic"
	"banger/internal/feature/restart"
	"banger/internal/feature/sshaccess"
	"banger/internal/hosttest"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tag = vm.Tag("ab12")

var (
	alice = vm.Caller{UID: 1000, GID: 1000}
	bob   = vm.Caller{UID: 1001, GID: 1001}
	root  = vm.Caller{}
)

// world is a daemon's worth of lifecycle on a fake host with a real store.
type world struct {
	t      reporter
	host   *hosttest.Host
	store  *store.Store
	images lifecycle.Images
	m      *lifecycle.Manager
	// preflight is what the host lacks, if anything.
	preflight atomic.Pointer[fault.Error]
	rules     admission.Rules
	more      []feature.Feature // after the others
	warm      bool              // golden snapshots are taken by themselves
	root      vm.RootBackend    // how root overlays are kept; empty is as the host can
	network   network.Space
	bootID    string
	log       *slog.Logger
}

// reporter is a test, or a try of one that tries many.
type reporter interface {
	Context() context.Context
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// catalog is a fixed set of images.
type catalog struct {
	lifecycle.Images
	list []image.Manifest
}

func (c catalog) List() ([]image.Manifest, error) { return c.list, nil }

func (c catalog) HealSeed(context.Context, string) (bool, error) { return false, nil }

func debian() image.Manifest {
	return image.Manifest{
		ID: "0123456789ab", Name: "debian:12", Arch: "amd64",
		Root: image.Disk{Size: 1 * vm.GiB}, WorkSeed: image.Seed{Disk: image.Disk{Size: 64 * vm.MiB}},
		Services: []image.Service{{Name: "ssh", Port: 22}},
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := openWorld(t, t.TempDir())
	t.Cleanup(w.close)
	return w
}

// openWorld is a world whose store is in dir, until it is closed.
func openWorld(t reporter, dir string) *world {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, host: hosttest.New(), store: s, network: hosttest.Network(tag), log: slog.New(slog.DiscardHandler), bootID: hosttest.BootID}
	w.images = w.host.Images(debian(), foreign())
	w.boot()
	return w
}

func (w *world) close() {
	w.m.Close()
	if err := w.store.Close(); err != nil {
		w.t.Errorf("close store: %v", err)
	}
}

// boot starts a daemon on the host and store as they are.
func (w *world) boot() {
	w.t.Helper()
	w.m = w.manager(w.images)
	w.must(w.store.FailInterrupted(w.t.Context(), lifecycle.Words))
	if err := w.m.Recover(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) manager(images lifecycle.Images) *lifecycle.Manager {
	if w.m != nil {
		w.m.Close() // a second close is nothing
	}
	layout := vm.Layout{State: "/state"}
	return lifecycle.New(lifecycle.Config{
		Layout: layout, Tag: tag, Arch: "amd64", BootID: w.bootID,
		Store: w.host.Store(w.store), Images: images,
		Hyper: w.host.Hypervisor(), Guests: w.host, Dirs: w.host, Snaps: w.host.Snapshots(), Freeze: w.host.Freeze, Warm: w.warm,
		Features: append([]feature.Feature{
			&compute.Feature{Balloons: w.host}, disk.Root(layout, tag, disk.Choice{Wish: w.root, Shares: true}, w.host, w.host, w.host.Devices()), disk.Work(layout, w.host, w.host, w.host), &nic.Feature{Links: w.host, Gate: w.host, Subnet: w.host, Defaults: network.Policy{NAT: true, Egress: network.EgressAll}},
			&bootset.Feature{Layout: layout, Kernels: w.host, Args: func(string) string { return "quiet" }},
			&door.Feature{Doors: w.host.Doors(), Fleet: w.store, Root: 1024},
			identity.Feature{},
			restart.Feature{},
			sshaccess.Feature{},
		}, w.more...),
		Capacity: w.host, Meter: w.host, Rules: w.rules,
		Network: w.network, Tracker: op.NewTracker(lifecycle.Journal(w.log)), Log: w.log,
		Defaults:    lifecycle.Defaults{Image: "debian:12", VCPU: 2, Memory: vm.GiB, WorkDisk: 8 * vm.GiB, Locale: "C.UTF-8"},
		BootTimeout: 2 * time.Second, StopTimeout: time.Second, TrashGrace: time.Hour, HaltInterval: 2 * time.Millisecond, QuietTimeout: 10 * time.Millisecond, RestartPause: time.Millisecond,
		Preflight: func(context.Context) error {
			if lacks := w.preflight.Load(); lacks != nil {
				return lacks
			}
			return nil
		},
	})
}

func foreign() image.Manifest {
	m := debian()
	m.ID, m.Name, m.Arch = "fedcba987654", "debian:arm", "arm64"
	return m
}

// restart kills the daemon and starts another.
func (w *world) restart() {
	w.t.Helper()
	w.m.Close()
	w.host.Revive()
	w.boot()
}

// end follows an operation to its end and returns how it ended.
func (w *world) end(o op.Operation, err error) error {
	w.t.Helper()
	if err != nil {
		return err
	}
	var last op.Operation
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.m.Tracker.Follow(ctx, o.ID, func(now op.Operation) error { last = now; return nil }); err != nil {
		w.t.Fatalf("follow %s: %v", o.Kind, err)
	}
	if last.Error != nil {
		return last.Error
	}
	return nil
}

func (w *world) create(name string) error {
	w.t.Helper()
	return w.end(w.m.Create(w.t.Context(), alice, lifecycle.CreateRequest{Name: name}))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) find(name string) vm.VM {
	w.t.Helper()
	v, err := w.m.Find(w.t.Context(), alice, name)
	w.must(err)
	return v
}

// await waits until the VM is in the state.
func (w *world) await(name string, want vm.State) vm.VM {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		v := w.find(name)
		if v.State == want && w.m.Idle(ctx) == nil {
			return v
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("%s is %s (%s), want %s", name, v.State, v.Reason, want)
		}
	}
}

// holds compares the host's text.
func (w *world) holds(want ...string) {
	w.t.Helper()
	if got := w.host.Text(); got != strings.Join(want, "\n") {
		w.t.Errorf("the host holds\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func (w *world) runningText(name string) []string {
	files := "initrd root.ext4 vm.json vmlinux work.ext4"
	if w.root == vm.RootSnapshot {
		files = "initrd root.cow root.ext4 vm.json vmlinux work.ext4"
	}
	lines := []string{
		"bridge banger-ab12",
		"dir " + name + ": " + files,
		"process " + name,
	}
	if w.root == vm.RootSnapshot {
		lines = append(lines, "root device banger-ab12-"+name)
	}
	lines = append(lines, "rules for btab12-"+name+": egress all, nat", "tap btab12-"+name+" on banger-ab12")
	all, err := w.m.List(w.t.Context(), root)
	w.must(err)
	for _, v := range all {
		if doors := vm.DoorsOf(v); v.Name == name && len(doors) > 0 {
			lines = slices.Insert(lines, 2, "doors "+name+": "+doors.String()) // as it is sorted
		}
	}
	return lines
}

func (w *world) stoppedText(name string) []string { return []string{"dir " + name + ": " + w.files()} }

func (w *world) trashedText(name string) []string {
	return []string{"trash " + name + ": " + w.files()}
}

// files are those of a VM that is stopped.
func (w *world) files() string {
	if w.root == vm.RootSnapshot {
		return "initrd root.cow vm.json vmlinux work.ext4"
	}
	return "initrd root.ext4 vm.json vmlinux work.ext4"
}

func code(err error) fault.Code { return fault.CodeOf(err) }
