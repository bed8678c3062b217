package firewall_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An error about another's connection is no way out: whoever hears it may be told anything by what it carries.
func TestErrorsAreNoWayOut(t *testing.T) {
	one, two := guest(1), guest(2)
	one.Policy.Isolated, one.Policy.Egress = true, "none"
	w := newWorld(t, one, two)
	a, b := w.guests[one.TAP], w.guests[two.TAP]
	w.outside.echo(server + ":80")
	w.rebuild(one, two)
	conn, err := b.dial("udp", server+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	port := netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
	var heard net.PacketConn
	w.outside.check(func() (err error) {
		heard, err = new(net.ListenConfig).ListenPacket(t.Context(), "ip4:icmp", server)
		return err
	})
	mac, err := net.ParseMAC(one.MAC)
	if t.Failed() || err != nil {
		t.Fatal(err)
	}
	defer func() { _ = heard.Close() }()
	to := netip.MustParseAddr(server)
	about := packet4(to, two.Address, unix.IPPROTO_UDP, udp(80, port, []byte("a secret")))
	message := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, about...)
	copy(message[2:], sum(message))
	if _, err := unix.Write(a.packets(), frame(net.HardwareAddr{2, 0xba, 192, 0, 2, 1}, mac, unix.ETH_P_IP, packet4(one.Address, to, unix.IPPROTO_ICMP, message))); err != nil {
		t.Error(err)
	}
	b.pings(server)
	buf := make([]byte, 1500)
	for {
		if err := heard.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := heard.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if buf[0] == 8 { // the ping, which comes later
			return
		}
		if bytes.Contains(buf[:n], []byte("a secret")) {
			t.Error("it got out")
		}
	}
}
