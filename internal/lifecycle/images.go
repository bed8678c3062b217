package lifecycle

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/op"
	"banger/internal/snapshot"
	"banger/internal/vm"
)

// Images finds, makes and removes boot sets. What it lists is whole: a half-made image is never seen.
type Images interface {
	List() ([]image.Manifest, error)
	// Pull bootstraps an image. It reports stages as they begin, with what is going on in them.
	Pull(ctx context.Context, name string, report StageReport) (image.Manifest, error)
	// Import lays the tree in a tar stream into an image with another image's kernel.
	Import(ctx context.Context, r ImportRequest, report StageReport) (image.Manifest, error)
	Delete(id string) error
	// HealSeed makes an image's work seed anew where it is of no use, and reports whether it did. An image that is gone
	// needs none.
	HealSeed(ctx context.Context, id string) (made bool, err error)
}

// StageReport tells that a stage goes on, and a line about it. A new name ends the stage before.
type StageReport = func(stage, detail string)

// ImportRequest asks for an image of a given tree.
type ImportRequest struct {
	Name       string
	Source     string // where the tree came from, for the manifest
	KernelFrom image.Manifest
	Tar        io.Reader // plain or compressed
	Interrupt  func()    // ends a Read of Tar that waits for a sender who has fallen silent
}

// Kinds of operations on images.
const (
	KindPull   = "image.pull"
	KindImport = "image.import"
	KindWarm   = "image.warm" // a golden snapshot of it is taken
)

// ListImages returns the images, ordered by name.
func (m *Manager) ListImages() ([]image.Manifest, error) {
	all, err := m.images.List()
	slices.SortFunc(all, func(a, b image.Manifest) int { return strings.Compare(a.Name, b.Name) })
	return all, err
}

// FindImage returns the image that the selector names.
func (m *Manager) FindImage(selector string) (image.Manifest, error) {
	all, err := m.images.List()
	if err != nil {
		return image.Manifest{}, err
	}
	return image.Select(all, selector)
}

// PullImage begins to bootstrap an image.
func (m *Manager) PullImage(caller vm.Caller, name string) (op.Operation, error) {
	if err := image.CheckName(name); err != nil {
		return op.Operation{}, err
	}
	return m.spawnImage(KindPull, caller, name, func(ctx context.Context, report StageReport) (image.Manifest, error) {
		return m.images.Pull(ctx, name, report)
	})
}

// ImportImage begins to make an image of the tree in r.Tar. The reader is used until the operation
// has ended; wait for that before closing it.
func (m *Manager) ImportImage(caller vm.Caller, r ImportRequest, kernelFrom string) (op.Operation, error) {
	if err := image.CheckName(r.Name); err != nil {
		return op.Operation{}, err
	}
	from, err := m.FindImage(kernelFrom)
	if err != nil {
		return op.Operation{}, err
	}
	r.KernelFrom = from
	return m.spawnImage(KindImport, caller, r.Name, func(ctx context.Context, report StageReport) (image.Manifest, error) {
		// A sender who stops sending must hold neither who calls it off nor the daemon's end.
		stop := context.AfterFunc(ctx, r.Interrupt)
		defer stop()
		return m.images.Import(ctx, r, report)
	})
}

// spawnImage runs body as a tracked operation. It is stored before it begins, so that the next daemon
// can tell what became of it if this one dies, and again before anybody is told that it has ended.
func (m *Manager) spawnImage(kind string, caller vm.Caller, name string, body func(context.Context, StageReport) (image.Manifest, error)) (op.Operation, error) {
	o := op.Operation{
		ID: op.NewID(), Kind: kind, Subject: name, Name: name, Owner: caller.UID,
		State: op.Underway, Created: time.Now(),
	}
	if _, err := m.admitDisk(0, 0); err != nil {
		return op.Operation{}, fault.From(err).InOp(verbs[kind], name)
	}
	if err := m.store.SaveOperation(m.ctx, o); err != nil {
		return op.Operation{}, fault.From(err).InOp(verbs[kind], name)
	}
	ctx, cancel := context.WithCancelCause(m.ctx)
	job := m.Tracker.Begin(o, func() { cancel(errCanceled) })
	m.jobs.run(func() {
		defer cancel(nil)
		var stage *op.ActiveStage
		var current string
		made, err := body(ctx, func(name, detail string) {
			if stage == nil || name != current {
				if stage != nil {
					stage.End(nil)
				}
				stage, current = job.Stage(name), name
			}
			stage.Detail(detail)
		})
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if stage != nil {
			stage.End(err)
		}
		var news []event.Event
		if err == nil {
			news = append(news, event.OfImage(event.ImageAdded, made))
		}
		err = m.asFault(o, err)
		m.saveEnd(job, err, news...)
		job.Finish(err)
	})
	return job.Snapshot(), nil
}

// DeleteImage removes an image that no VM was made from, and its golden snapshots.
func (m *Manager) DeleteImage(ctx context.Context, caller vm.Caller, selector string) error {
	// A create that has chosen this image holds the lock until its VM is committed.
	m.choosing.Lock()
	defer m.choosing.Unlock()
	img, err := m.FindImage(selector)
	if err != nil {
		return err
	}
	all, err := m.store.VMs(ctx)
	if err != nil {
		return err
	}
	var names []string
	others := 0
	for _, v := range all {
		switch {
		case v.Image.ID != img.ID:
		case caller.Sees(v.Owner):
			names = append(names, v.Name)
		default:
			others++
		}
	}
	for _, v := range m.trashed() {
		switch {
		case v.Image.ID != img.ID:
		case caller.Sees(v.Owner):
			names = append(names, v.Name+" (in the trash)") // restored, it would boot the image's kernel
		default:
			others++
		}
	}
	if others > 0 {
		names = append(names, fmt.Sprintf("%d of other users", others))
	}
	if len(names) > 0 {
		return fault.New(fault.InUse, "VMs were made from it: %s", strings.Join(names, ", ")).WithOp("delete image", selector).
			WithHint("delete those VMs first, and empty the trash of them")
	}
	// First: what is left of an image without its golden snapshots can make others.
	m.dropGolden(func(_ string, f snapshot.Frozen) bool { return f.Image == img.ID })
	if err := m.images.Delete(img.ID); err != nil {
		return fault.System(err, "delete image", img.Name)
	}
	if err := m.store.Note(ctx, event.OfImage(event.ImageRemoved, img)); err != nil {
		m.log.Error("tell that an image was removed", "image", img.Name, "error", err) // it is gone all the same
	}
	return nil
}

// healSeed sees to it, behind a create, that the image's next VM finds the work seed that it should. What hinders that is
// logged: creates do without.
func (m *Manager) healSeed(img vm.ImageRef) {
	m.jobs.run(func() {
		m.choosing.RLock() // or it would be deleted meanwhile
		defer m.choosing.RUnlock()
		made, err := m.images.HealSeed(m.ctx, img.ID)
		switch {
		case err != nil && m.ctx.Err() == nil:
			m.log.Error("make an image's work seed anew", "image", img.Name, "error", err)
		case made:
			m.log.Warn("an image's work seed was of no use, and was made anew", "image", img.Name)
		}
	})
}

// ImageUsers returns the names of the VMs made from each image that the caller may see, by image id.
func (m *Manager) ImageUsers(ctx context.Context, caller vm.Caller) (map[string][]string, error) {
	seen, err := m.List(ctx, caller)
	users := map[string][]string{}
	for _, v := range seen {
		users[v.Image.ID] = append(users[v.Image.ID], v.Name)
	}
	return users, err
}
