package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/api"
	"banger/internal/client"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/host/door"
	"banger/internal/host/firecracker"
	"banger/internal/host/firewall"
	"banger/internal/host/firewall/others"
	"banger/internal/host/handover"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/op"
	"banger/internal/store"
	"banger/internal/vm"
)

// patient is a catalog whose pulls last until they are released or called off.
type patient struct{ blocked }

func (p patient) Pull(ctx context.Context, _ string, _ lifecycle.StageReport) (image.Manifest, error) {
	select {
	case <-p.release:
		return image.Manifest{}, nil
	case <-ctx.Done():
		return image.Manifest{}, ctx.Err()
	}
}

// answering is a daemon that serves, without a host, and what it returns in the end.
func answering(t *testing.T, release chan struct{}) (d *Daemon, c *client.Client, end context.CancelFunc, outcome <-chan error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	d = upgradable(t, patient{blocked{release: release}})
	d.cfg.Socket = path
	d.layout = vm.Layout{State: t.TempDir()}
	d.driver = firecracker.New("none", d.layout, nil, d.log)
	d.subnet = &subnet{}
	d.gate = &gate{tables: firewall.New("ab12"), others: others.New("ab12", nil, t.TempDir()), log: d.log}
	var err error
	if d.store, err = store.Open(t.Context(), d.layout.State); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if d.socket, err = listen(t.Context(), path, ""); err != nil {
		t.Fatal(err)
	}
	if d.sockets, err = handover.Take(); err != nil {
		t.Fatal(err)
	}
	d.doors = door.New(d.sockets, nil, d.log)
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.answer(ctx) }()
	return d, client.New(path), end, ended
}

// follow begins a pull and follows it. begun is closed once it is being followed.
func follow(t *testing.T, c *client.Client) (begun <-chan struct{}, last <-chan op.Operation) {
	t.Helper()
	o, err := c.PullImage(t.Context(), api.PullImage{Name: "debian:12"})
	if err != nil {
		t.Fatal(err)
	}
	seen, end := make(chan struct{}), make(chan op.Operation, 1)
	go func() {
		first := true
		o, err := c.Follow(t.Context(), o.ID, func(op.Operation) {
			if first {
				close(seen)
				first = false
			}
		})
		if err != nil {
			t.Error(err)
		}
		end <- o
	}()
	return seen, end
}

// TestWhoFollowsIsToldOfTheEnd stops a daemon while an operation runs and somebody watches it.
func TestWhoFollowsIsToldOfTheEnd(t *testing.T) {
	d, c, end, outcome := answering(t, nil)
	begun, last := follow(t, c)
	<-begun
	end()
	if o := <-last; o.State != op.Canceled || o.Error.Error() != `pull image "debian:12": the daemon is stopping` {
		t.Errorf("it ended as %+v", o)
	}
	if err := <-outcome; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if page, err := d.store.Events(t.Context(), 0, 10); err != nil || len(page.Events) != 1 || page.Events[0].Kind != event.DaemonEnded {
		t.Errorf("told was %+v, %v", page, err)
	}
	if _, err := os.Lstat(d.cfg.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its socket: %v", err)
	}
	if _, err := c.Version(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("afterwards: %v", err)
	}
}

// TestAnUpgradeLetsLateComersEnd begins an operation just before the daemon makes way for a newer build.
func TestAnUpgradeLetsLateComersEnd(t *testing.T) {
	release := make(chan struct{})
	d, c, end, outcome := answering(t, release)
	defer end()
	begun, last := follow(t, c)
	<-begun
	close(d.upgrade)
	select {
	case err := <-outcome:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	close(release)
	if o := <-last; o.State != op.Done {
		t.Errorf("it ended as %+v", o)
	}
	if err := <-outcome; !errors.Is(err, errUpgrade) || d.handover == nil {
		t.Fatalf("the daemon ended with %v", err)
	}
	defer d.handover.Close()
	_ = connect(t, d.cfg.Socket) // waits in the queue of the listener that is handed over
}
