package daemon

import (
	"context"
	"net/netip"
	"time"

	"banger/internal/network"
)

// gate stands between guests and everything else.
type gate struct{}

// Guard implements nic.Gate.
func (gate) Guard(context.Context, network.Guest) error { return nil }

// Unguard implements nic.Gate.
func (gate) Unguard(context.Context, string) error { return nil }

// Guarded implements nic.Gate.
func (gate) Guarded(context.Context) ([]string, error) { return nil, nil }

// CheckFirewall implements nic.Gate.
func (gate) CheckFirewall() error { return nil }

// Learn implements dns.Learner.
func (gate) Learn(context.Context, string, string, []netip.Addr, time.Duration) error { return nil }

// Refused takes note of a name that a guest asked for and may not know.
func (gate) Refused(network.Guest, string) {}
