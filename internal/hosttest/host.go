// Package hosttest is a stateful fake of the host: it does in memory what the real one does with the
// kernel, prints its state as text for a comparison as a whole, and can fail or crash at any of its
// effects. Effects are numbered in the order in which they happen and carry a label.
package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/lifecycle"
	"banger/internal/network"
	"banger/internal/op"
	"banger/internal/vm"
)

// ErrCrashed is what every effect returns after the crash: the daemon that asked is dead.
var ErrCrashed = errors.New("the daemon has crashed")

// ErrInjected is the failure of a chosen effect.
var ErrInjected = errors.New("injected failure")

// Host is the fake. Its zero value is not usable; call New.
type Host struct {
	mu      sync.Mutex
	taps    map[string]tap          // by name
	spares  int                     // how many of them are kept ready
	bridges map[string]bool         // by name
	doors   map[vm.ID]vm.Doors      // that are open
	taken   map[netip.AddrPort]bool // where others listen

	nextPort uint16

	guarded map[string]network.Guest  // what the firewall knows, by TAP
	dirs    map[vm.ID]map[string]bool // VM directories and the files in them
	trash   map[vm.ID]map[string]bool // those in the trash
	known   map[vm.ID]vm.VM           // what each vm.json says
	names   map[vm.ID]string          // from vm.json, to print ids as names
	kept    []string                  // logs of failed creates
	snaps   map[string]*captured      // directories of snapshots, by path
	version string                    // of the hypervisor
	sizes   map[string]int64          // of disks, by path
	marks   map[string]string         // what was written to disks, by path
	noSeed  map[string]bool           // images without a work seed that is of use, by id

	overlays map[string]vm.Overlay // root overlays that are devices, by device
	lost     map[string]bool       // files of theirs that the kernel has given up, by path

	procs   map[int]*process
	nextPID int
	room    Room
	guests  map[string]*guest // by jail

	oldAgents bool
	asked     int // times that guests were asked what they use

	effects []string
	failAt  int    // number of the effect that fails, from 1; 0 is never
	crashAt int    // number of the effect after which the daemon is dead
	failOn  Effect // the effect that fails
	crashOn Effect // the effect after which the daemon is dead
	crashed bool

	// Behaviour of guests that boot from now on.
	Guest Behaviour
}

// Behaviour is what a guest does when it is booted.
type Behaviour string

// The behaviours.
const (
	Healthy    Behaviour = ""            // says hello, then ready
	Silent     Behaviour = "silent"      // never says a word
	Dies       Behaviour = "dies"        // its hypervisor ends before it is ready
	Deaf       Behaviour = "deaf"        // does not answer requests once it is ready
	Old        Behaviour = "old"         // its agent is one of the first
	FailsEarly Behaviour = "fails early" // says hello, then, once its vm.json is there, that its boot failed, and ends
)

type process struct {
	id          vm.ID
	dir         string
	gone        chan struct{}
	described   chan struct{} // closed when a vm.json names it
	isDescribed bool
	cpu         time.Duration
	line        func(string)

	behind time.Duration // its guest's clock
	paused bool
	looks  int // at its CPU time
	seen   Seen
	old    bool // its agent

	balloon int64
}

// New returns an empty host.
func New() *Host {
	return &Host{
		taps: map[string]tap{}, bridges: map[string]bool{}, doors: map[vm.ID]vm.Doors{}, taken: map[netip.AddrPort]bool{}, nextPort: 20000, guarded: map[string]network.Guest{}, dirs: map[vm.ID]map[string]bool{},
		trash: map[vm.ID]map[string]bool{}, known: map[vm.ID]vm.VM{},
		names: map[vm.ID]string{}, snaps: map[string]*captured{}, version: "Fake 1.0", sizes: map[string]int64{}, marks: map[string]string{}, noSeed: map[string]bool{}, overlays: map[string]vm.Overlay{}, lost: map[string]bool{},
		procs: map[int]*process{}, guests: map[string]*guest{}, nextPID: 1000, room: plenty(),
	}
}

// FailAt makes the n-th effect from now fail once.
func (h *Host) FailAt(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.undisturbed()
	h.failAt = n
}

// CrashAt lets the n-th effect from now happen and every later one fail with ErrCrashed.
func (h *Host) CrashAt(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.undisturbed()
	h.crashAt = n
}

// Revive is the daemon's restart: effects work again.
func (h *Host) Revive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	effects := h.effects
	h.undisturbed()
	h.effects, h.crashed = effects, false
	clear(h.doors)
}

// undisturbed lets every effect from now on happen. h.mu is held.
func (h *Host) undisturbed() {
	h.effects, h.failAt, h.crashAt, h.failOn, h.crashOn = nil, 0, 0, Effect{}, Effect{}
}

// Behave says what guests do that boot from now on, also while some boot.
func (h *Host) Behave(b Behaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Guest = b
}

// Effects lists the labels of all effects since the last FailAt or CrashAt.
func (h *Host) Effects() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.effects)
}

// effect counts one effect and says whether it may happen. h.mu is held.
func (h *Host) effect(label string) error {
	if h.crashed {
		return ErrCrashed
	}
	h.effects = append(h.effects, label)
	n, this := len(h.effects), last(h.effects)
	if n == h.failAt || this == h.failOn {
		return fmt.Errorf("%s: %w", label, ErrInjected)
	}
	if n == h.crashAt || this == h.crashOn {
		h.crashed = true // this one still happens
	}
	return nil
}

// Text prints what the host holds, sorted, VM ids replaced by names. An empty host prints nothing.
func (h *Host) Text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for b := range h.bridges {
		lines = append(lines, "bridge "+b)
	}
	for name := range h.overlays {
		lines = append(lines, "root device "+name)
	}
	for name, t := range h.taps {
		if h.ready(t) {
			continue // how many there are depends on when one looks
		}
		lines = append(lines, "tap "+name+" on "+t.String())
	}
	for name, g := range h.guarded {
		lines = append(lines, "rules for "+name+": "+rules(g.Policy))
	}
	for id, files := range h.dirs {
		lines = append(lines, "dir "+string(id)+": "+strings.Join(slices.Sorted(maps.Keys(files)), " "))
	}
	for id, files := range h.trash {
		lines = append(lines, "trash "+string(id)+": "+strings.Join(slices.Sorted(maps.Keys(files)), " "))
	}
	for _, p := range h.procs {
		line := "process " + string(p.id)
		if p.paused {
			line += " paused"
		}
		lines = append(lines, line)
	}
	lines = append(lines, h.doorText()...)
	lines = append(lines, h.snapshotText()...)
	text := strings.Join(lines, "\n")
	for id, name := range h.names {
		text = strings.ReplaceAll(text, string(id), name)
		text = strings.ReplaceAll(text, string(id[:8]), name)
	}
	lines = strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Clone implements disk.Disks.
func (h *Host) Clone(_ context.Context, src, dst string, size int64) (string, error) {
	return "reflink", h.duplicate(src, dst, size)
}

// Copy implements disk.Disks.
func (h *Host) Copy(_ context.Context, src, dst string, size int64) (string, error) {
	return "copy", h.duplicate(src, dst, size)
}

func (h *Host) duplicate(src, dst string, size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("clone " + filepath.Base(dst)); err != nil {
		return err
	}
	if h.has(dst) {
		return fault.New(fault.AlreadyExists, "file exists")
	}
	h.sizes[dst] = max(size, h.sizes[src])
	if mark, ok := h.marks[src]; ok {
		h.marks[dst] = mark
	}
	return h.put(dst)
}

// put makes a file below a VM's jail, or in a snapshot. h.mu is held.
func (h *Host) put(path string) error {
	if c := h.snaps[filepath.Dir(path)]; c != nil {
		c.files[filepath.Base(path)] = true
		return nil
	}
	files, ok := h.dirs[ownerOf(path)]
	if !ok {
		return fmt.Errorf("make %s: %w", path, fs.ErrNotExist)
	}
	files[filepath.Base(path)] = true
	return nil
}

// Exists implements disk.Disks.
func (h *Host) Exists(path string) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.has(path), nil
}

// Lose removes a file of a VM behind the daemon's back.
func (h *Host) Lose(id vm.ID, file string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.dirs[id], file)
}

// LoseDirectory removes a VM's directory behind the daemon's back.
func (h *Host) LoseDirectory(id vm.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.dirs, id)
}

// Crashed reports whether the daemon is dead.
func (h *Host) Crashed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.crashed
}

// Listeners is how many VMs' agents are listened for.
func (h *Host) Listeners() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.guests)
}

// Link implements bootset.Kernels.
func (h *Host) Link(_ context.Context, _, dir string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("link boot set"); err != nil {
		return err
	}
	return errors.Join(h.put(filepath.Join(dir, vm.FileKernel)), h.put(filepath.Join(dir, vm.FileInitrd)))
}

// Make implements lifecycle.Dirs.
func (h *Host) Make(id vm.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("make directory"); err != nil {
		return err
	}
	h.dirs[id] = map[string]bool{}
	return nil
}

// Write implements lifecycle.Dirs.
func (h *Host) Write(v vm.VM) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("write vm.json"); err != nil {
		return err
	}
	files, ok := h.dirs[v.ID]
	if !ok {
		return fmt.Errorf("write vm.json: %w", fs.ErrNotExist)
	}
	files["vm.json"] = true
	h.known[v.ID] = v
	h.names[v.ID] = v.Name
	if v.Process != nil && h.procs[v.Process.PID] != nil {
		if p := h.procs[v.Process.PID]; !p.isDescribed {
			p.isDescribed = true
			close(p.described)
		}
	}
	return nil
}

// Remove implements lifecycle.Dirs.
func (h *Host) Remove(id vm.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("remove directory"); err != nil {
		return err
	}
	delete(h.dirs, id)
	return nil
}

// KeepLogs implements lifecycle.Dirs.
func (h *Host) KeepLogs(_ vm.ID, set string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.effect("keep logs"); err != nil {
		return nil, err
	}
	h.kept = append(h.kept, set)
	return []string{"/kept/" + set + "/console.log"}, nil
}

// Tail implements lifecycle.Dirs.
func (*Host) Tail(string, int) string { return "last words on the console" }

// Store returns a store whose commits are effects too.
func (h *Host) Store(s lifecycle.Store) lifecycle.Store { return &gated{Store: s, host: h} }

type gated struct {
	lifecycle.Store
	host *Host
}

func (g *gated) pass(label string) error {
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	return g.host.effect(label)
}

// Create implements lifecycle.Store.
func (g *gated) Create(ctx context.Context, v vm.VM, pick lifecycle.LeasePicker, hold func(vm.VM) []vm.Record, o op.Operation) (vm.VM, error) {
	if err := g.pass("commit intent"); err != nil {
		return vm.VM{}, err
	}
	g.host.mu.Lock()
	g.host.names[v.ID] = v.Name
	g.host.mu.Unlock()
	return g.Store.Create(ctx, v, pick, hold, o)
}

// SaveOperation implements lifecycle.Store.
func (g *gated) SaveOperation(ctx context.Context, o op.Operation, news ...event.Event) error {
	if err := g.pass("commit operation " + string(o.State)); err != nil {
		return err
	}
	return g.Store.SaveOperation(ctx, o, news...)
}

// Note implements lifecycle.Store.
func (g *gated) Note(ctx context.Context, news ...event.Event) error {
	if err := g.pass("commit news"); err != nil {
		return err
	}
	return g.Store.Note(ctx, news...)
}

// Commit implements lifecycle.Store.
func (g *gated) Commit(ctx context.Context, c vm.Change) error {
	label := "commit " + string(c.VM.State)
	if c.Remove {
		label = "commit removal"
	}
	if err := g.pass(label); err != nil {
		return err
	}
	return g.Store.Commit(ctx, c)
}

// Relet implements lifecycle.Store.
func (g *gated) Relet(ctx context.Context, c vm.Change, pick lifecycle.LeasePicker) (vm.VM, error) {
	if err := g.pass("commit " + string(c.VM.State)); err != nil {
		return c.VM, err
	}
	return g.Store.Relet(ctx, c, pick)
}

func subnet() netip.Prefix { return netip.MustParsePrefix("198.18.0.0/24") }

// Network is a small one.
func Network(tag vm.Tag) network.Space {
	return network.Space{Tag: tag, Subnet: subnet(), ULA: network.NewULA([5]byte{1, 2, 3, 4, 5})}
}
