package lifecycle_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger/internal/admission"
	"banger/internal/fault"
	"banger/internal/hosttest"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/vm"
)

// builder is a catalog that makes images as the test says.
type builder struct {
	catalog
	pull    func(ctx context.Context, report lifecycle.StageReport) error
	deleted map[string]bool
}

func (b builder) Pull(ctx context.Context, _ string, report lifecycle.StageReport) (image.Manifest, error) {
	return image.Manifest{}, b.pull(ctx, report)
}

func (b builder) Import(ctx context.Context, r lifecycle.ImportRequest, report lifecycle.StageReport) (image.Manifest, error) {
	report("unpack", r.Source)
	_, err := io.Copy(io.Discard, r.Tar)
	return image.Manifest{}, err
}

// TestOperationsOnImagesAreStored holds that they outlive the daemon as those on VMs do.
func TestOperationsOnImagesAreStored(t *testing.T) {
	full := fault.New(fault.Exhausted, "no space left").WithHint("free some")
	for name, c := range map[string]struct {
		pull func(context.Context, lifecycle.StageReport) error
		call func(w *world, o op.Operation) // what happens while it runs
		want op.State
		code fault.Code
		text string
	}{
		"done": {
			pull: func(context.Context, lifecycle.StageReport) error { return nil }, want: op.Done,
		},
		"failed": {
			pull: func(context.Context, lifecycle.StageReport) error { return full },
			want: op.Failed, code: fault.Exhausted, text: `pull image "debian:13": no space left`,
		},
		"called off": {
			pull: untilDone, call: func(w *world, o op.Operation) { w.must(w.m.Tracker.Cancel(o.ID)) },
			want: op.Canceled, code: fault.Canceled, text: `pull image "debian:13": it was called off`,
		},
		"the daemon stops": {
			pull: untilDone, call: func(w *world, _ op.Operation) { w.m.Close() },
			want: op.Canceled, code: fault.Canceled, text: `pull image "debian:13": the daemon is stopping`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.m = w.manager(builder{pull: func(ctx context.Context, report lifecycle.StageReport) error {
				report("bootstrap", "10%")
				report("bootstrap", "20%")
				report("seal", "")
				return c.pull(ctx, report)
			}})
			o, err := w.m.PullImage(alice, "debian:13")
			w.must(err)
			if kept, err := w.store.Operation(t.Context(), o.ID); err != nil || kept.Owner != alice.UID {
				t.Errorf("before it has ended the store has %+v, %v", kept, err)
			}
			if c.call != nil {
				c.call(w, o)
			}
			ended := w.end(o, nil)
			got, err := w.store.Operation(t.Context(), o.ID)
			w.must(err)
			if got.State != c.want || fault.CodeOf(ended) != c.code {
				t.Errorf("stored as %s, ended with %v", got.State, ended)
			}
			if c.text != "" && got.Error.Error() != c.text {
				t.Errorf("stored error %q, want %q", got.Error, c.text)
			}
			want := []op.Stage{{Name: "bootstrap", Detail: "20%", Done: true, Outcome: op.Done}, {Name: "seal", Done: true, Outcome: c.want}}
			if diff := cmp.Diff(want, got.Stages, cmpopts.IgnoreFields(op.Stage{}, "Started", "Duration", "Error")); diff != "" {
				t.Error(diff)
			}
			if got.Error != nil && got.Error.Stage != "seal" {
				t.Errorf("the error is of stage %q", got.Error.Stage)
			}
			tracked, _ := w.m.Tracker.Get(o.ID)
			if diff := cmp.Diff(tracked, got, cmpopts.EquateApproxTime(time.Second), cmpopts.IgnoreFields(fault.Error{}, "Err")); diff != "" {
				t.Errorf("the store tells it otherwise than the tracker:\n%s", diff)
			}
		})
	}
}

func (b builder) Delete(id string) error {
	b.deleted[id] = true
	return nil
}

func TestAnImageInUseIsNotDeleted(t *testing.T) {
	w := newWorld(t)
	b := builder{catalog: catalog{list: []image.Manifest{debian(), foreign()}}, deleted: map[string]bool{}}
	w.m = w.manager(b)
	w.must(w.create("dev"))
	w.must(w.end(w.m.Create(t.Context(), bob, lifecycle.CreateRequest{Name: "bobs"})))
	for caller, want := range map[vm.Caller]string{
		alice: `delete image "debian:12": VMs were made from it: dev, 1 of other users`,
		bob:   `delete image "debian:12": VMs were made from it: bobs, 1 of other users`,
		root:  `delete image "debian:12": VMs were made from it: bobs, dev`,
	} {
		if err := w.m.DeleteImage(t.Context(), caller, "debian:12"); !fault.Is(err, fault.InUse) || err.Error() != want {
			t.Errorf("%+v is told %v", caller, err)
		}
	}
	users, err := w.m.ImageUsers(t.Context(), alice)
	if diff := cmp.Diff(map[string][]string{debian().ID: {"dev"}}, users); diff != "" || err != nil {
		t.Error(diff, err)
	}
	w.must(w.m.DeleteImage(t.Context(), alice, "debian:arm"))
	if err := w.m.DeleteImage(t.Context(), alice, "nothing"); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(map[string]bool{foreign().ID: true}, b.deleted); diff != "" {
		t.Error(diff)
	}
}

func TestAnImageGoesWithItsGoldenSnapshots(t *testing.T) {
	w := warmWorld(t)
	w.must(w.m.DeleteImage(t.Context(), alice, "debian:arm"))
	if text := w.host.Text(); !strings.Contains(text, "snapshot in golden") {
		t.Fatalf("another image's went: %q", text)
	}
	w.host.Alter() // whether it is of use does not matter
	w.must(w.m.DeleteImage(t.Context(), alice, "debian:12"))
	w.holds()
}

func untilDone(ctx context.Context, _ lifecycle.StageReport) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAnImportReadsTheTreeUntilItHasEnded(t *testing.T) {
	w := newWorld(t)
	w.m = w.manager(builder{catalog: catalog{list: []image.Manifest{debian()}}})
	r, send := io.Pipe()
	o, err := w.m.ImportImage(alice, lifecycle.ImportRequest{Name: "mine", Source: "a.tar", Tar: r, Interrupt: func() {}}, "debian:12")
	w.must(err)
	broken := fault.New(fault.Unavailable, "the upload broke off")
	w.must(send.CloseWithError(broken))
	if err := w.end(o, nil); err == nil || err.Error() != `import image "mine": the upload broke off` {
		t.Errorf("got %v", err)
	}
	kept, err := w.store.Operation(t.Context(), o.ID)
	w.must(err)
	if kept.Kind != lifecycle.KindImport || kept.State != op.Failed || kept.Error.Code != fault.Unavailable {
		t.Errorf("stored as %+v", kept)
	}
}

// TestAnImportFromASilentSender holds that it can be called off, and does not hold the daemon's end.
func TestAnImportFromASilentSender(t *testing.T) {
	for name, end := range map[string]func(*world, op.Operation){
		"called off":       func(w *world, o op.Operation) { w.must(w.m.Tracker.Cancel(o.ID)) },
		"the daemon stops": func(w *world, _ op.Operation) { w.m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.m = w.manager(builder{catalog: catalog{list: []image.Manifest{debian()}}})
			r, _ := io.Pipe()
			o, err := w.m.ImportImage(alice, lifecycle.ImportRequest{
				Name: "mine", Tar: r, Interrupt: func() { _ = r.CloseWithError(io.ErrClosedPipe) },
			}, "debian:12")
			w.must(err)
			end(w, o)
			if err := w.end(o, nil); code(err) != fault.Canceled {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestAnInterruptedPullIsToldByTheNextDaemon lets a daemon die in the middle of one.
func TestAnInterruptedPullIsToldByTheNextDaemon(t *testing.T) {
	w := newWorld(t)
	o := op.Operation{ID: op.NewID(), Kind: lifecycle.KindPull, Subject: "debian:13", Name: "debian:13", State: op.Underway, Created: time.Now()}
	w.must(w.store.SaveOperation(t.Context(), o))
	w.must(w.store.FailInterrupted(t.Context(), lifecycle.Words))
	got, err := w.store.Operation(t.Context(), o.ID)
	w.must(err)
	if got.State != op.Failed || got.Error.Error() != `pull image "debian:13": the daemon ended while it ran` {
		t.Errorf("got %+v", got)
	}
}

func TestAFullDiskTakesNoImages(t *testing.T) {
	w := newWorld(t)
	w.host.SetRoom(func(r *hosttest.Room) { r.Space = admission.Space{Free: vm.GiB, Size: 100 * vm.GiB} })
	w.refused(w.end(w.m.PullImage(alice, "debian:13")), `pull image "debian:13": the disk is below its low-water mark: 1 GiB are free, the mark is at 5 GiB`)
}
