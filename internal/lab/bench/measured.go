// Package bench measures what banger adds to a boot: creates through the real command, in turn with
// bare boots, in which Firecracker gets the same files and devices and nobody else does anything.
// Only the ratio of the two says something beyond the machine that it was measured on.
package bench

import (
	"time"

	"banger/internal/op"
)

// Measured is what one run of the benchmark saw. It travels as JSON from the lab host to its caller.
type Measured struct {
	Image  string  `json:"image"`
	Rounds []Round `json:"rounds"`
	Weight Weight  `json:"weight"`
}

// Round is one create and one bare boot, one right after the other.
type Round struct {
	Create Create `json:"create"`
	Bare   Bare   `json:"bare"`
}

// Bare is one bare boot.
type Bare struct {
	Ready time.Duration `json:"ready"` // nanoseconds from the fork to the agent's Ready
	// Stages are named as those of a create. That of the hypervisor lasts until the guest's clock begins.
	Stages []op.Stage `json:"stages"`
}

// Create is one `banger vm create`.
type Create struct {
	Command   time.Duration `json:"command"` // nanoseconds that the command ran
	Operation op.Operation  `json:"operation"`
	// What the command and the daemon used of the processors meanwhile, in nanoseconds: time that the
	// hypervisor may have missed.
	CommandCPU time.Duration `json:"command_cpu"`
	DaemonCPU  time.Duration `json:"daemon_cpu"`
	// Hypervisor is when Firecracker wrote the first line of its log.
	Hypervisor time.Time `json:"hypervisor"`
	// CommitsBefore counts the durable commits before the hypervisor was started, Commits all of the create's.
	CommitsBefore int64 `json:"commits_before"`
	Commits       int64 `json:"commits"`
	Children      int64 `json:"children"` // processes that the daemon started, Firecracker included
}

// ready is the time from the request's arrival at the daemon until the operation had ended: the guest
// was ready and that was committed.
func (c Create) ready() time.Duration { return c.Operation.Ended.Sub(c.Operation.Created) }

// own is the part of ready in which no hypervisor ran, or the guest was ready already.
func (c Create) own() time.Duration {
	own := c.Hypervisor.Sub(c.Operation.Created)
	for _, s := range c.Operation.Stages {
		if s.Name == stageGuest {
			own += c.Operation.Ended.Sub(s.Started.Add(s.Duration))
		}
	}
	return own
}

// Stages of an operation. That of the guest ends when the agent says Ready.
const (
	stageHypervisor = "hypervisor"
	stageGuest      = "guest"
	stageServices   = "guest.services"
)

// Weight is what banger weighs.
type Weight struct {
	Daemon      int64           `json:"daemon"`       // bytes resident, before any VM
	Agent       int64           `json:"agent"`        // bytes resident in the guest
	AgentBinary int64           `json:"agent_binary"` // bytes
	Initrd      int64           `json:"initrd"`       // bytes
	List        []time.Duration `json:"list"`         // nanoseconds of CPU of each `banger vm list`
}
