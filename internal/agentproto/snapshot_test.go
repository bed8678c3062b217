package agentproto_test

import (
	"testing"

	"banger/internal/agentproto"
)

func TestNetworkParse(t *testing.T) {
	for _, c := range []struct {
		n    agentproto.Network
		want string // of the error
	}{
		{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "10.9.0.5/24", Gateway: "10.9.0.1"}, ""},
		{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "10.9.0.5/24"}, ""},
		{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "fd00::5/64", Gateway: "fd00::1"}, ""},
		{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "10.9.0.5/24", Address6: "fd00::5/64", Gateway6: "fd00::1"}, ""},
		{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "10.9.0.5/24", Address6: "fd00::5"}, `address "fd00::5": netip.ParsePrefix("fd00::5"): no '/'`},
		{agentproto.Network{}, "invalid MAC address"},
		{agentproto.Network{MAC: "02:00:00:00:00:00:00:05"}, "address 02:00:00:00:00:00:00:05: it is not an Ethernet one"},
		{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "10.9.0.5"}, `address "10.9.0.5": netip.ParsePrefix("10.9.0.5"): no '/'`},
		{agentproto.Network{MAC: "02:00:00:00:00:05", Address: "10.9.0.5/24", Gateway: "up"}, `gateway "up": ParseAddr("up"): unable to parse IP`},
	} {
		nic, err := c.n.Parse()
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: got %q, want %q", c.n, got, c.want)
		}
		if err == nil && (nic.MAC.String() != c.n.MAC || nic.Address.String() != c.n.Address || nic.Gateway.IsValid() != (c.n.Gateway != "")) {
			t.Errorf("%+v: got %+v", c.n, nic)
		}
	}
}
