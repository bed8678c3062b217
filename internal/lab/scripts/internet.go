package scripts

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// Where the host meets the internet that scripts have, and what else is there. None of it knows a way back to a guest's
// address.
const (
	farLink    = "far"
	hostSide   = "203.0.113.1/24"
	farSide    = "203.0.113.2"
	hostSide6  = "2001:db8:1::1/64"
	farSide6   = "2001:db8:1::2"
	farther    = "198.51.100.7"
	farther2   = "198.51.100.8"
	resolvConf = "/etc/resolv.conf"
)

// internet stands for all that is beyond the host: a network namespace that lives as long as its processes do.
type internet struct {
	ctx      context.Context // testscript's commands have none of their own
	dir      string
	holder   *exec.Cmd // a process that does nothing but be there
	resolver *exec.Cmd
}

// fakeInternet begins one: fake-internet DIR. The directory www of DIR is served by HTTP on port 80, what port 7 is sent it
// sends back, and the file names of DIR, with lines as in /etc/hosts, is what the host's resolver knows. Once more, with no
// DIR, it has the resolver read that file again. All of it ends with the script.
func fakeInternet(ctx context.Context) command {
	var n *internet
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 && n == nil || len(args) != 0 && n != nil {
			ts.Fatalf("usage: fake-internet DIR, then fake-internet")
		}
		if n == nil {
			n = &internet{ctx: ctx, dir: ts.MkAbs(args[0])}
			ts.Check(n.begin(ts))
			ts.Setenv("FAR", strconv.Itoa(n.holder.Process.Pid))
			return
		}
		end(n.resolver)
		ts.Check(n.resolve(ts))
	}
}

func (n *internet) begin(ts *testscript.TestScript) error {
	n.holder = exec.CommandContext(n.ctx, "sleep", "infinity")
	n.holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	if err := n.holder.Start(); err != nil {
		return err
	}
	ts.Defer(func() { end(n.holder) })
	pid := strconv.Itoa(n.holder.Process.Pid)
	ip := func(args string) error { return program(n.ctx, append([]string{"ip"}, strings.Fields(args)...)...) }
	far := func(args string) error { return program(n.ctx, n.there("ip "+args)...) }
	if err := ip("link add " + farLink + " type veth peer name home netns " + pid); err != nil {
		return err
	}
	ts.Defer(func() { _ = ip("link delete " + farLink) }) // its other end goes with the namespace, in time
	for _, step := range []struct {
		do   func(string) error
		what string
	}{
		{far, "link set lo up"},
		{far, "link set home up"},
		{far, "address add " + farSide + "/24 dev home"},
		{far, "address add " + farSide6 + "/64 dev home nodad"},
		{far, "address add " + farther + "/32 dev lo"},
		{far, "address add " + farther2 + "/32 dev lo"},
		{ip, "link set " + farLink + " up"},
		{ip, "address add " + hostSide + " dev " + farLink},
		{ip, "address add " + hostSide6 + " dev " + farLink + " nodad"},
		{ip, "route add 198.51.100.0/24 via " + farSide},
	} {
		if err := step.do(step.what); err != nil {
			return err
		}
	}
	if _, err := n.serve(ts, "80", "busybox httpd -f -p 80 -h "+filepath.Join(n.dir, "www")); err != nil {
		return err
	}
	if _, err := n.serve(ts, "7", "busybox nc -ll -p 7 -e /bin/cat"); err != nil {
		return err
	}
	if err := n.resolve(ts); err != nil {
		return err
	}
	aside := resolvConf + ".aside"
	if err := os.Rename(resolvConf, aside); err != nil && !os.IsNotExist(err) {
		return err
	}
	ts.Defer(func() {
		_ = os.Remove(resolvConf)
		_ = os.Rename(aside, resolvConf) // where there was one
	})
	return os.WriteFile(resolvConf, []byte("nameserver "+farSide+"\n"), 0o644)
}

// resolve begins the resolver. Its answers hold for 2 seconds.
func (n *internet) resolve(ts *testscript.TestScript) (err error) {
	n.resolver, err = n.serve(ts, "53", "dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file --user=root --no-resolv --no-hosts --local=/com/ --local=/org/ --local-ttl=2"+
		" --txt-record=example.com,tunnel --addn-hosts="+filepath.Join(n.dir, "names"))
	return err
}

// there is a command line for the namespace.
func (n *internet) there(line string) []string {
	return append([]string{"nsenter", "--net", "--target", strconv.Itoa(n.holder.Process.Pid)}, strings.Fields(line)...)
}

// serve begins a server, and waits until it listens.
func (n *internet) serve(ts *testscript.TestScript, port, line string) (*exec.Cmd, error) {
	argv := n.there(line)
	c := exec.CommandContext(n.ctx, argv[0], argv[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said := &strings.Builder{}
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		return nil, err
	}
	ts.Defer(func() { end(c) })
	var refused error
	if err := until(n.ctx, waitEnd, func() bool {
		var conn net.Conn
		if conn, refused = (&net.Dialer{}).DialContext(n.ctx, "tcp", net.JoinHostPort(farSide, port)); refused == nil {
			refused = conn.Close()
		}
		return refused == nil
	}); err != nil {
		end(c)
		return nil, fmt.Errorf("%s: %w: %s", line, refused, said)
	}
	return c, nil
}

// end ends a process, and those that it began. One that has been ended is let be.
func end(c *exec.Cmd) {
	if c.ProcessState == nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait() // that it was killed
	}
}
