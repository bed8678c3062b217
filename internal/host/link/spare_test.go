package link_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/host/link"
	"banger/internal/netnstest"
	"banger/internal/vm"
)

// check stops a test that is in a namespace.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
}

func holds(t *testing.T, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, names(t)); d != "" {
		t.Error(d)
	}
}

// leaks holds that these TAPs, and no others, are somebody's to account for.
func leaks(t *testing.T, links *link.Links, want ...string) {
	t.Helper()
	got, err := links.TAPs(t.Context())
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

// TestSpareTAPs come once there is a VM, are taken by VMs, are made again, and go with the last VM.
func TestSpareTAPs(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links := link.New("ab12", 2)
		one, two := lease("111111111111", "ab12", "10.9.0.5/24"), lease("222222222222", "ab12", "10.9.0.6/24")
		check(t, links.Fill(t.Context()))
		holds(t) // no VM was there ever

		check(t, attach(t, links, one))
		check(t, links.Fill(t.Context()))
		holds(t, "banger-ab12", "btab12-11111111", "tap-pool-ab1200", "tap-pool-ab1201")
		leaks(t, links, "btab12-11111111")

		check(t, attach(t, links, two))
		holds(t, "banger-ab12", "btab12-11111111", "btab12-22222222", "tap-pool-ab1201")
		if idle, size, err := links.Spares(); idle != 1 || size != 2 || err != nil {
			t.Errorf("%d of %d are idle, %v", idle, size, err)
		}
		tap, err := netlink.LinkByName(two.TAP)
		check(t, err)
		checkUp(t, tap)
		guest := openAsFirecracker(t, two.TAP)
		answered(t, guest, whoHas(two), []byte{0x02, 0xba, 10, 9, 0, 1, 10, 9, 0, 1})
		guest.Close()

		check(t, links.Fill(t.Context()))
		holds(t, "banger-ab12", "btab12-11111111", "btab12-22222222", "tap-pool-ab1200", "tap-pool-ab1201")
		check(t, links.Detach(t.Context(), one.TAP))
		holds(t, "banger-ab12", "btab12-22222222", "tap-pool-ab1200", "tap-pool-ab1201")
		for range 2 { // gone is success
			check(t, links.Detach(t.Context(), two.TAP))
			holds(t)
		}
		check(t, links.Fill(t.Context()))
		holds(t)
	})
}

// TestNothingPassesThroughASpareTAP holds that one which somebody opens is deaf and dumb.
func TestNothingPassesThroughASpareTAP(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links, l := link.New("ab12", 1), lease("111111111111", "ab12", "10.9.0.5/24")
		check(t, attach(t, links, l))
		check(t, links.Fill(t.Context()))
		guest := openAsFirecracker(t, "tap-pool-ab1200")
		defer guest.Close()
		if _, err := guest.Write(whoHas(l)); !errors.Is(err, unix.EIO) {
			t.Errorf("got %v", err)
		}
	})
}

// TestSpareTAPsOfAnotherDaemon are taken over by their names: those that are too many are told of, as all are once they
// are alone.
func TestSpareTAPsOfAnotherDaemon(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		before, l := link.New("ab12", 3), lease("111111111111", "ab12", "10.9.0.5/24")
		check(t, attach(t, before, l))
		check(t, before.Fill(t.Context()))
		tap, err := netlink.LinkByName("tap-pool-ab1200")
		check(t, err)
		check(t, netlink.LinkSetUp(tap)) // by whom ever

		links := link.New("ab12", 1)
		leaks(t, links, "btab12-11111111", "tap-pool-ab1201", "tap-pool-ab1202")
		check(t, links.Detach(t.Context(), "tap-pool-ab1202"))
		check(t, links.Fill(t.Context()))
		holds(t, "banger-ab12", "btab12-11111111", "tap-pool-ab1200", "tap-pool-ab1201")
		tap, err = netlink.LinkByName("tap-pool-ab1200")
		check(t, err)
		if tap.Attrs().Flags&net.FlagUp != 0 {
			t.Error("a spare TAP is up")
		}

		tap, err = netlink.LinkByName(l.TAP)
		check(t, err)
		check(t, netlink.LinkDel(tap)) // behind the daemon's back
		leaks(t, links, "tap-pool-ab1200", "tap-pool-ab1201")
		check(t, links.Detach(t.Context(), "tap-pool-ab1201"))
		holds(t)
	})
}

// TestKeepSpares fills behind whoever takes one.
func TestKeepSpares(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		links, l := link.New("ab12", 2), lease("111111111111", "ab12", "10.9.0.5/24")
		check(t, attach(t, links, l)) // says that some may be missing
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		links.KeepSpares(stopWhenFull{ctx, links}, func(err error) { t.Error(err) }) // in this thread, whose namespace it is
		holds(t, "banger-ab12", "btab12-11111111", "tap-pool-ab1200", "tap-pool-ab1201")
	})
}

// stopWhenFull is a context that ends once all spare TAPs are there.
type stopWhenFull struct {
	context.Context
	links *link.Links
}

func (c stopWhenFull) Done() <-chan struct{} {
	if idle, size, err := c.links.Spares(); err != nil || idle == size {
		over := make(chan struct{})
		close(over)
		return over
	}
	return c.Context.Done()
}

// BenchmarkAttach tells what a VM waits for, without a spare TAP and with one.
func BenchmarkAttach(b *testing.B) {
	for _, spares := range []int{0, 1} {
		b.Run(fmt.Sprintf("spares=%d", spares), func(b *testing.B) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				check(b, unix.Unshare(unix.CLONE_NEWNET))
				links := link.New("ab12", spares)
				first := lease("ffffffffffff", "ab12", "10.9.0.5/24")
				check(b, links.Prepare(b.Context(), first))
				for b.Loop() {
					b.StopTimer()
					check(b, links.Fill(b.Context()))
					l := lease(vm.NewID(), "ab12", "10.9.0.6/24")
					l.Gateway = netip.MustParseAddr("10.9.0.1")
					b.StartTimer()
					check(b, links.Prepare(b.Context(), l))
					check(b, links.Admit(b.Context(), l.TAP))
					b.StopTimer()
					check(b, links.Detach(b.Context(), l.TAP))
					b.StartTimer()
				}
			}()
			<-done
		})
	}
}
