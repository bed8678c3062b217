package agentproto

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Hold asks the guest to be fit for a snapshot: it writes everything to its disks, closes its control connection, and
// dials no other until For is over or the host asks for anything else. A vsock packet that is under way in a snapshot can
// leave the device deaf when that is restored (Firecracker's pull request 5958), so the host waits for the agent to close
// the request connection, too. An agent that knows no such request answers with an error.
type Hold struct {
	For time.Duration `json:"for"`
}

// MaxHold bounds a Hold: a guest whose host has forgotten it is to come back.
const MaxHold = 5 * time.Minute

// Adopt gives a guest that was restored from a snapshot a whole new identity; when it is answered all of that is in
// effect, and the agent dials the control port anew. An agent that knows no such request answers with an error.
type Adopt struct {
	Config  GuestConfig `json:"config"`
	Token   string      `json:"token"`   // of every Hello from now on
	Now     time.Time   `json:"now"`     // host's clock, taken as the frame is written
	Entropy []byte      `json:"entropy"` // without it all guests of one snapshot would draw the same random numbers
}

// Bounds of an Adopt, in bytes.
const (
	MinEntropy = 32
	MaxEntropy = 512
	MaxToken   = 128
)

// Check tells what keeps a guest from being made what is asked.
func (a Adopt) Check() error {
	if n := len(a.Entropy); n < MinEntropy || n > MaxEntropy {
		return fmt.Errorf("%d bytes of entropy: it takes %d to %d", n, MinEntropy, MaxEntropy)
	}
	if n := len(a.Token); n == 0 || n > MaxToken {
		return fmt.Errorf("a token of %d bytes: it takes 1 to %d", n, MaxToken)
	}
	if a.Config.Network == nil {
		return nil
	}
	_, err := a.Config.Network.Parse()
	return err
}

// Adopted says what of an Adopt could not be done and leaves the guest usable all the same.
type Adopted struct {
	Warning string `json:"warning,omitempty"`
}

// NIC is a Network in the form that a kernel takes.
type NIC struct {
	MAC     net.HardwareAddr
	Address netip.Prefix
	Gateway netip.Addr // not valid when there is none, and so are the next two

	Address6 netip.Prefix
	Gateway6 netip.Addr
}

// Parse reads a Network.
func (n Network) Parse() (NIC, error) {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return NIC{}, err
	}
	if len(mac) != 6 {
		return NIC{}, fmt.Errorf("address %s: it is not an Ethernet one", n.MAC)
	}
	nic := NIC{MAC: mac}
	if nic.Address, nic.Gateway, err = family(n.Address, n.Gateway); err != nil || n.Address6 == "" {
		return nic, err
	}
	nic.Address6, nic.Gateway6, err = family(n.Address6, n.Gateway6)
	return nic, err
}

func family(address, gateway string) (a netip.Prefix, g netip.Addr, err error) {
	if a, err = netip.ParsePrefix(address); err != nil {
		return a, g, fmt.Errorf("address %q: %w", address, err)
	}
	if gateway == "" {
		return a, g, nil
	}
	if g, err = netip.ParseAddr(gateway); err != nil {
		return a, g, fmt.Errorf("gateway %q: %w", gateway, err)
	}
	return a, g, nil
}
