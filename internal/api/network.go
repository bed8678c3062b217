package api

import (
	"time"

	"banger/internal/network"
)

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
