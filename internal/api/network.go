package api

import (
	"strings"
	"time"

	"banger/internal/network"
)

// Policy is what a VM may do on the network: as its owner wants it, else as the instance has it.
type Policy struct {
	Isolated bool           `json:"isolated" doc:"from other VMs"`
	NAT      bool           `json:"nat" doc:"it gets out by the host's IPv4 addresses"`
	NAT6     bool           `json:"nat6" doc:"and by its IPv6 addresses"`
	Egress   network.Egress `json:"egress" doc:"how far: all, none or list"`
	Allow    []string       `json:"allow,omitempty" doc:"names, addresses and CIDRs that it may connect to where egress is list"`
}

// PolicyOf is a policy as people read it.
func PolicyOf(p network.Policy) *Policy {
	out := &Policy{Isolated: p.Isolated, NAT: p.NAT, NAT6: p.NAT6, Egress: p.Egress}
	if text := p.Allow.String(); text != "" {
		out.Allow = strings.Split(text, ",")
	}
	return out
}

// Explain asks why a packet of a VM's would arrive somewhere, or would not.
type Explain struct {
	Destination string `json:"destination" doc:"HOST, HOST:PORT or a URL"`
	Probe       bool   `json:"probe,omitempty" doc:"have the guest connect to it too"`
}

// Explanation says why.
type Explanation struct {
	VM          string `json:"vm"`
	Destination string `json:"destination"`
	network.Explanation
	Probe *Probe `json:"probe,omitempty"`
}

// Probe is what came of a connection that the guest was asked to make.
type Probe struct {
	Connected bool          `json:"connected"`
	Took      time.Duration `json:"took" doc:"nanoseconds"`
	Error     string        `json:"error,omitempty"`
}

// UninstallNetwork asks to take away all that the instance has changed of the host's network.
type UninstallNetwork struct {
	DryRun bool `json:"dry_run,omitempty" doc:"only tell what there is"`
}
