package firewall_test

import (
	"testing"
)

func TestOpenGuests(t *testing.T) {
	one, two := guest(1), guest(2)
	w := newWorld(t, one, two)
	a, b := w.guests[one.TAP], w.guests[two.TAP]
	w.outside.echo(server + ":80")
	w.outside.echo("[" + server6 + "]:80")
	b.echo(":7")
	w.rebuild(one, two)
	a.reaches("tcp", "192.0.2.12:7", "[2001:db8:1::12]:7", server+":80", "["+server6+"]:80")
	a.reaches("udp", "192.0.2.12:7", server+":80")
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	w.at(w.fw.Check)
	w.at(w.fw.Check)
}
