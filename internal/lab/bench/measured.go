// Package bench measures what banger adds to a boot: each verb through the real command, in turn with
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

// Round is one bare boot and each verb once, one right after the other.
type Round struct {
	Bare   Bare          `json:"bare"`
	Verbs  map[Name]Verb `json:"verbs"`
	Growth Growth        `json:"growth"`
}

// Name says which verb.
type Name string

// The verbs.
const (
	ColdCreate Name = "cold create"
	WarmCreate Name = "warm create"
	Fork       Name = "fork"
	Start      Name = "start"
	Stop       Name = "stop"
	Delete     Name = "delete"
)

// names lists them as reports do.
func names() []Name { return []Name{ColdCreate, WarmCreate, Fork, Start, Stop, Delete} }

// Bare is one bare boot.
type Bare struct {
	Ready time.Duration `json:"ready"` // nanoseconds from the fork to the agent's Ready
	// Stages are named as those of a create. That of the hypervisor lasts until the guest's clock begins.
	Stages   []op.Stage    `json:"stages"`
	Snapshot time.Duration `json:"snapshot"` // nanoseconds that Firecracker took to write one of the guest, which stood still
}

// Verb is one command that carried out one operation.
type Verb struct {
	Command   time.Duration `json:"command"` // nanoseconds that the command ran
	Operation op.Operation  `json:"operation"`
	// What the command and the daemon used of the processors meanwhile, in nanoseconds: time that the
	// hypervisor may have missed.
	CommandCPU time.Duration `json:"command_cpu"`
	DaemonCPU  time.Duration `json:"daemon_cpu"`
	Commits    int64         `json:"commits"`  // durable ones
	Children   int64         `json:"children"` // processes that the daemon started, Firecracker included

	// Of a verb that starts a guest: when Firecracker wrote the first line of its log, and how many of the durable commits
	// were made before it was started.
	Hypervisor    time.Time `json:"hypervisor,omitzero"`
	CommitsBefore int64     `json:"commits_before,omitempty"`
	// SSH is the time from the request's arrival at the daemon until a first command had run over an authenticated SSH
	// connection, in nanoseconds; zero where the image offers no SSH.
	SSH time.Duration `json:"ssh,omitempty"`

	ended time.Time // the command, without what was looked at for this report after it
}

// ready is the time from the request's arrival at the daemon until the operation had ended: where it
// starts a guest, that was ready, and that was committed.
func (v Verb) ready() time.Duration { return v.Operation.Ended.Sub(v.Operation.Created) }

// own is the part of ready in which neither a hypervisor nor its guest was waited for.
func (v Verb) own() time.Duration {
	own := v.ready()
	for _, s := range v.Operation.Stages {
		switch s.Name {
		case stageHypervisor, stageRestore:
			if end := s.Started.Add(s.Duration); end.After(v.Hypervisor) && !v.Hypervisor.IsZero() {
				own -= end.Sub(v.Hypervisor)
			}
		case stageGuest, stageIdentity, stageShutdown, stageHold, stagePause, stageSnapshot, stageResume:
			own -= s.Duration
		}
	}
	return own
}

// pause is how long the guest stood still of which a snapshot was taken.
func (v Verb) pause() time.Duration {
	var begun, ended time.Time
	for _, s := range v.Operation.Stages {
		switch s.Name {
		case stagePause:
			begun = s.Started
		case stageResume:
			ended = s.Started.Add(s.Duration)
		}
	}
	return ended.Sub(begun)
}

// Stages of an operation. That of the guest ends when the agent says Ready, and so does that of its identity.
const (
	stageHypervisor = "hypervisor" // of a boot, and of a stop
	stageRestore    = "restore"
	stageGuest      = "guest"
	stageIdentity   = "identity"
	stageServices   = "guest.services"
	stageShutdown   = "shutdown"
	stageHold       = "hold"
	stagePause      = "pause"
	stageSnapshot   = "snapshot"
	stageResume     = "resume"
)

// Growth is what one more create takes of the disk, in bytes that its file system has less.
type Growth struct {
	BeforeStart int64 `json:"before_start"` // when the hypervisor is about to be started
	UntilReady  int64 `json:"until_ready"`
}

// Weight is what banger weighs.
type Weight struct {
	Daemon      int64           `json:"daemon"`       // bytes resident, before any VM
	Agent       int64           `json:"agent"`        // bytes resident in the guest
	AgentBinary int64           `json:"agent_binary"` // bytes
	Initrd      int64           `json:"initrd"`       // bytes
	List        []time.Duration `json:"list"`         // nanoseconds of CPU of each `banger vm list`
}
