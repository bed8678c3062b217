package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/client"
	"banger/internal/fault"
	"banger/internal/procnet"
	"banger/internal/relay"
	nouns "banger/internal/vm"
)

func newForward(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use:   "forward NAME PORT...",
		Short: "Have ports of this machine lead to a VM's, until Ctrl-C",
		Long: `Listen here, as ssh -L does, and lead whoever connects into the guest, also to what listens on its loopback alone. A
PORT is [[ADDRESS:]LOCAL_PORT:]GUEST_PORT; with no local port, as in :80, one that is free is taken. It ends with
Ctrl-C, and nothing of it stays; what is to stay is 'banger vm port add'.`,
		Example: `  banger vm forward dev 8080:80
  banger vm forward dev 5432 :6379
  banger vm forward dev 0.0.0.0:8080:80`,
		Args: app.Args(2, -1),
		RunE: run(func(ctx context.Context, args []string) error {
			return forward(ctx, a, args[0], args[1:])
		}),
		ValidArgsFunction: a.Complete(1, app.VMs),
	}
}

// forwarded is what forward prints as JSON, for each port.
type forwarded struct {
	Address   string `json:"address"` // with the port
	GuestPort int    `json:"guest_port"`
}

// forward listens until ctx ends.
func forward(ctx context.Context, a *app.App, name string, ports []string) error {
	doors := make([]nouns.Door, len(ports))
	for i, text := range ports {
		var err error
		if doors[i], err = nouns.ParseDoor(text); err != nil {
			return err
		}
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	v, err := c.VM(ctx, name)
	if err != nil {
		return err
	}
	if v.State != nouns.Running {
		return fault.New(fault.WrongState, "it is %s", v.State).WithOp("forward ports of VM", v.Name).
			WithHint("start it with `banger vm start %s`", v.Name)
	}
	failures := make(chan error) // none is told once it ends
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, d := range doors {
		l, err := listenHere(ctx, d)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = l.Close() }) // which ends what accepts
		if err := tellForward(a, v, d, l.Addr().String()); err != nil {
			return err
		}
		tasks.Go(func() {
			forwardAll(ctx, l, &tasks, func(near *net.TCPConn) {
				if err := forwardOne(ctx, c, v, d, near); err != nil {
					select {
					case failures <- fmt.Errorf("port %d of %s: %s", d.Port, v.Name, fault.From(err).Msg):
					case <-ctx.Done():
					}
				}
			})
		})
	}
	if !a.Data() {
		a.Hint("Ctrl-C ends it")
	}
	for {
		select {
		case err := <-failures:
			a.Hint("%v", err)
		case <-ctx.Done():
			return nil
		}
	}
}

func listenHere(ctx context.Context, d nouns.Door) (net.Listener, error) {
	network := "tcp4"
	if d.Listen.Addr().Is6() {
		network = "tcp6"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, d.Listen.String())
	if err == nil {
		return l, nil
	}
	return nil, notHere(d, err).WithOp("listen on", d.Listen.String())
}

// notHere says why a port of this machine cannot be had.
func notHere(d nouns.Door, err error) *fault.Error {
	hint := fmt.Sprintf("choose another local port, or `:%d` for one that is free", d.Port)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fault.New(fault.InUse, "%s", procnet.Holder(d.Listen)).WithHint("%s", hint)
	case errors.Is(err, syscall.EACCES):
		return fault.New(fault.Forbidden, "only root may listen on ports as low as this").WithHint("%s", hint)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fault.New(fault.Unavailable, "this machine has no address %s", d.Listen.Addr()).WithHint("`ip address` shows those that it has")
	}
	return fault.New(fault.Unavailable, "%w", err).WithHint("%s", hint)
}

func tellForward(a *app.App, v api.VM, d nouns.Door, at string) error {
	if a.Data() {
		return a.PrintLine(forwarded{at, int(d.Port)})
	}
	_, err := fmt.Fprintf(a.IO.Out, "%s leads to port %d of %s\n", at, d.Port, term.Escape(v.Name))
	return err
}

// forwardAll leads all that connect into the guest.
func forwardAll(ctx context.Context, l net.Listener, tasks *sync.WaitGroup, lead func(near *net.TCPConn)) {
	for {
		near, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // such as of too many open files
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		tasks.Go(func() {
			defer near.Close()
			lead(near.(*net.TCPConn))
		})
	}
}

const acceptPause = 100 * time.Millisecond

// forwardOne joins a connection to one into the guest. A failure to connect there is one here.
func forwardOne(ctx context.Context, c *client.Client, v api.VM, d nouns.Door, near *net.TCPConn) error {
	far, err := c.Dial(ctx, string(v.ID), int(d.Port))
	if err != nil {
		return errors.Join(err, near.SetLinger(0))
	}
	defer far.Close()
	abort := func() {
		_ = near.SetLinger(0)
		_ = near.Close()
		_ = far.Close() // which ends the copying
	}
	defer context.AfterFunc(ctx, abort)()
	_ = relay.Both(near, far.(relay.Conn), abort) // both ends know how it ended
	return nil
}
