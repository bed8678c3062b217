package resolver

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// again is how long a watch that broke off is away.
const again = 10 * time.Second

// Watch calls again each time that what systemd-resolved was told may be gone: when a bridge of the instance has come, when systemd-resolved has, and once
// at first. It returns when ctx ends.
func (h Host) Watch(ctx context.Context, apply func()) {
	for ctx.Err() == nil {
		_ = h.watch(ctx, apply) // whoever is watched may be away himself
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

func (h Host) watch(ctx context.Context, apply func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer bus.Close()
	err = bus.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, resolvedName))
	if err != nil {
		return err
	}
	signals := make(chan *dbus.Signal, 16)
	bus.Signal(signals)
	links, failed := make(chan netlink.LinkUpdate), make(chan error, 1)
	err = netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}})
	if err != nil {
		return err
	}
	defer func() {
		for range links { // its goroutine ends with the channel
		}
	}()
	defer cancel()
	known, err := h.bridges()
	if err != nil {
		return err
	}
	apply()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case s, ok := <-signals:
			if !ok {
				return errors.New("the bus has gone")
			}
			if owner, is := s.Body[len(s.Body)-1].(string); is && owner != "" {
				apply()
			}
		case u, ok := <-links:
			if !ok {
				return errors.New("the kernel tells no more of links")
			}
			index := int(u.Index)
			switch _, ours := h.Tag.MarksBridge(u.Attrs().Name); {
			case u.Header.Type == unix.RTM_DELLINK:
				delete(known, index)
			case ours && known[index] == "":
				known[index] = u.Attrs().Name
				apply()
			}
		}
	}
}
