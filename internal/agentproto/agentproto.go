// Package agentproto is the language between the daemon and the agent inside a guest: vsock ports,
// frames and the documents they carry.
//
// Two kinds of connection exist.
//
// The control connection is dialled by the guest (CID 2, ControlPort) and lives as long as the
// agent. Both sides send frames: the agent says Hello first and is answered with Welcome; later it
// pushes Progress, Ready, Failed and Farewell. A lost control connection is dialled again.
//
// Request connections are dialled by the host (RequestPort), one for each request: one Request
// frame, one Response frame, and for a granted OpDial a Stream, for OpSSH that protocol.
//
// A frame is a 4-byte big-endian length and that many bytes of JSON. Unknown fields are ignored, so
// that either side may be one release older.
package agentproto

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Vsock ports and bounds.
const (
	HostCID     = 2    // the host, as a guest dials it
	ControlPort = 1024 // host listens
	RequestPort = 1023 // agent listens; below 1024, so no unprivileged process can in its place
)

// Bounds of a frame in bytes. The host is trusted with a whole guest config; what a guest may say
// is short.
const (
	MaxFromHost  = 1 << 20
	MaxFromAgent = 16 << 10
)

// Versions of the protocol that this build speaks. Both sides state a range at Hello and use the
// highest version in both.
const (
	MinVersion = 1
	MaxVersion = 1
)

// How far a guest's wall clock may be off before it is stepped. What the host says of the time is some way old when it is
// heard, so a clock that is right looks as if it were ahead: by that of a guest which has just been restored, and is slow to
// hear anything, for a quarter of a second. A step back is worse than what it would mend, too: journald begins a new file.
const (
	ClockTolerance = 100 * time.Millisecond
	aheadTolerance = 2 * time.Second
)

// ClockIsOff reports whether a clock that is behind by this much, or ahead where it is negative, is to be stepped.
func ClockIsOff(behind time.Duration) bool {
	return behind > ClockTolerance || behind < -aheadTolerance
}

// ErrFrameTooLarge is returned for a frame longer than its reader or the protocol allows.
var ErrFrameTooLarge = errors.New("frame is larger than the protocol allows")

// WriteFrame sends v as one frame.
func WriteFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > MaxFromHost {
		return ErrFrameTooLarge
	}
	buf := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(buf, uint32(len(body)))
	_, err = w.Write(append(buf, body...))
	return err
}

// ReadFrame receives one frame of at most limit bytes into v. It returns io.EOF when the connection
// ends between frames.
func ReadFrame(r io.Reader, v any, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(limit) {
		return ErrFrameTooLarge
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) { // a length and then nothing
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}

// Negotiate returns the highest version in both ranges.
func Negotiate(peerMin, peerMax int) (int, error) {
	v := min(peerMax, MaxVersion)
	if v < max(peerMin, MinVersion) {
		return 0, fmt.Errorf("the peer speaks protocol versions %d to %d, this build %d to %d", peerMin, peerMax, MinVersion, MaxVersion)
	}
	return v, nil
}

// FromAgent is a frame on the control connection from guest to host; exactly one field is set.
type FromAgent struct {
	Hello    *Hello    `json:"hello,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Ready    *Ready    `json:"ready,omitempty"`
	Failed   *Failed   `json:"failed,omitempty"`
	Farewell *Farewell `json:"farewell,omitempty"`
}

// FromHost is a frame on the control connection from host to guest; exactly one field is set.
type FromHost struct {
	Welcome *Welcome `json:"welcome,omitempty"`
	Refused *Refused `json:"refused,omitempty"`
}

// Hello opens every control connection.
type Hello struct {
	MinVersion int    `json:"min_version"`
	MaxVersion int    `json:"max_version"`
	Agent      string `json:"agent"`   // build version of the agent
	Arch       string `json:"arch"`    // GOARCH
	BootID     string `json:"boot_id"` // of the guest's kernel
	Phase      Phase  `json:"phase"`
	Token      string `json:"token,omitempty"` // from the Welcome of PhaseBoot; needed in PhaseResident
}

// Phase says which of the agent's lives is speaking.
type Phase string

// The phases. The initrd's agent needs the guest config; the resident one already has it.
const (
	PhaseBoot     Phase = "boot"
	PhaseResident Phase = "resident"
)

// Welcome answers Hello. Config is set in PhaseBoot only.
type Welcome struct {
	Version int          `json:"version"`
	Now     time.Time    `json:"now"` // host's clock, taken as the frame is written; the guest's follows it
	Config  *GuestConfig `json:"config,omitempty"`

	// Token is set in PhaseBoot too. Any process of the guest can dial the host; by the token the host
	// knows the resident agent, so it must be kept from unprivileged ones.
	Token string `json:"token,omitempty"`
}

// Refused answers a Hello whose versions do not overlap, or that comes from somebody else than an agent.
type Refused struct {
	Reason string `json:"reason"`
}

// Progress reports that a step of the guest's boot is done.
type Progress struct {
	Stage  string        `json:"stage"`  // one of the stages
	Uptime time.Duration `json:"uptime"` // guest's clock since its kernel started, nanoseconds
}

// Stages are the steps of a guest's boot, in their order. StageKernel is done when the agent begins,
// StageInit when the distribution's init is about to be executed.
const (
	StageKernel  = "kernel"
	StageModules = "modules"
	StageDisks   = "disks"
	StageConfig  = "config"
	StageInit    = "init"
)

// Ready says that the guest serves: the agent listens on RequestPort and every awaited service answers.
type Ready struct {
	Uptime   time.Duration            `json:"uptime"`
	Services map[string]time.Duration `json:"services,omitempty"` // uptime at which each answered
}

// Failed says that the boot cannot go on.
type Failed struct {
	Stage string `json:"stage"`
	Msg   string `json:"msg"`
}

// Farewell says that the guest is going down in order: its init has begun to end every process.
// What follows tells the rest: a Firecracker that exits by itself was rebooted, one that stays with
// silent vCPUs was powered off.
type Farewell struct {
	Intent Intent `json:"intent"`
}

// Intent is what the one who asked for the shutdown wanted.
type Intent string

// The intents. IntentUnknown comes from a shutdown that began inside the guest.
const (
	IntentPoweroff Intent = "poweroff"
	IntentReboot   Intent = "reboot"
	IntentUnknown  Intent = "unknown"
)

// GuestConfig is everything that makes a booted image one particular VM.
type GuestConfig struct {
	Hostname       string    `json:"hostname"`
	MachineID      string    `json:"machine_id"`
	Network        *Network  `json:"network,omitempty"`
	Mounts         []Mount   `json:"mounts,omitempty"`
	Files          []File    `json:"files,omitempty"`
	AuthorizedKeys []string  `json:"authorized_keys,omitempty"`
	Timezone       string    `json:"timezone,omitempty"` // IANA name; empty keeps the image's
	Locale         string    `json:"locale,omitempty"`   // as in LANG; empty keeps the image's
	Init           []string  `json:"init,omitempty"`     // argv of the init to execute; empty looks for one
	Services       []Service `json:"services,omitempty"` // what Ready waits for
}

// Network configures the guest's only NIC.
type Network struct {
	MAC     string   `json:"mac"`     // selects the NIC
	Address string   `json:"address"` // CIDR
	Gateway string   `json:"gateway,omitempty"`
	DNS     []string `json:"dns,omitempty"`
	Search  []string `json:"search,omitempty"` // domains that names are looked up in

	Address6 string `json:"address6,omitempty"` // an IPv6 one beside the other, CIDR
	Gateway6 string `json:"gateway6,omitempty"`
}

// Mount is a disk the agent mounts before init runs. The root disk is not among them.
type Mount struct {
	Device string `json:"device"` // "/dev/vdb"
	Path   string `json:"path"`
	FSType string `json:"fstype"`
	Grow   bool   `json:"grow,omitempty"` // enlarge the file system to its device while mounting
}

// File is written into the root file system at every boot, owned by root.
type File struct {
	Path    string `json:"path"` // absolute
	Mode    uint32 `json:"mode"` // permission bits
	Content []byte `json:"content"`
}

// Service is something Ready waits for.
type Service struct {
	Name string `json:"name"`
	Port int    `json:"port"` // TCP, on any of the guest's addresses
}

// Request opens a request connection.
type Request struct {
	Op       Op        `json:"op"`
	Dial     *Dial     `json:"dial,omitempty"`
	Shutdown *Shutdown `json:"shutdown,omitempty"`
	Clock    *Clock    `json:"clock,omitempty"`
	Grow     *Grow     `json:"grow,omitempty"`
	Rename   *Rename   `json:"rename,omitempty"`
	Hold     *Hold     `json:"hold,omitempty"`
	Adopt    *Adopt    `json:"adopt,omitempty"`
}

// Op names what a request wants.
type Op string

// The requests.
const (
	OpPing     Op = "ping"
	OpInfo     Op = "info"
	OpShutdown Op = "shutdown"
	OpDial     Op = "dial"
	OpClock    Op = "clock"
	OpGrow     Op = "grow"
	OpRename   Op = "rename"
	OpStats    Op = "stats"
	OpHold     Op = "hold"
	OpAdopt    Op = "adopt"
	OpListen   Op = "listeners"
	OpSSH      Op = "ssh" // then the agent serves SSH on the connection; one that knows no such request answers with an error
)

// Dial asks for a TCP connection inside the guest.
type Dial struct {
	Host string `json:"host,omitempty"` // empty means the guest itself: its loopback, or whichever of its addresses answers
	Port int    `json:"port"`
}

// Shutdown asks for an orderly end. The agent answers, says Farewell with this intent, and has the
// guest's init reboot: a reset is what ends Firecracker on x86.
type Shutdown struct {
	Intent Intent `json:"intent"`
}

// Clock tells the guest the time: after a pause or a suspend of the host its wall clock stands where it
// stood. An agent that knows no such request answers with an error.
type Clock struct {
	Now time.Time `json:"now"` // host's clock, taken as the frame is written
}

// Clocked says what became of the guest's clock.
type Clocked struct {
	Off time.Duration `json:"off"` // how far it was behind; stepped when ClockIsOff
}

// Grow tells the guest that a disk of its is larger now, and asks it to enlarge the file system on it to that
// size. An agent that knows no such request answers with an error: then the next boot does it.
type Grow struct {
	Device string `json:"device"` // "/dev/vdb"
	Size   int64  `json:"size"`   // bytes
}

// Rename gives the guest another hostname. An agent that knows no such request answers with an error: then the
// next boot does it.
type Rename struct {
	Hostname string `json:"hostname"`
}

// Response answers a request. Error is empty when it was granted.
type Response struct {
	Error   string   `json:"error,omitempty"`
	Info    *Info    `json:"info,omitempty"`
	Clock   *Clocked `json:"clock,omitempty"`
	Stats   *Stats   `json:"stats,omitempty"`
	Adopted *Adopted `json:"adopted,omitempty"`

	Listeners *Listeners `json:"listeners,omitempty"`
}

// Listeners are the guest's TCP sockets that are listened on, the lowest ports first. An agent that knows no such request
// answers with an error.
type Listeners struct {
	All  []Socket `json:"all,omitempty"`
	More int      `json:"more,omitempty"` // that there are beside those
}

// MaxListeners bounds those in one answer, so that it fits a frame.
const MaxListeners = 64

// Socket is one that is listened on.
type Socket struct {
	Address string `json:"address"` // with the port
	PID     int    `json:"pid,omitempty"`
	Program string `json:"program,omitempty"` // of that process, as the kernel has its name
}

// Stats is what the guest uses: few fields that are cheap to read, since a host with many guests asks each of them every
// few seconds. An agent that knows no such request answers with an error.
type Stats struct {
	CPU      time.Duration `json:"cpu"`       // that its vCPUs were not idle since the kernel started, all together
	MemTotal int64         `json:"mem_total"` // bytes
	MemAvail int64         `json:"mem_avail"` // bytes
}

// Info describes the running guest.
type Info struct {
	Agent    string        `json:"agent"`
	Version  int           `json:"version"`
	Kernel   string        `json:"kernel"`
	OS       string        `json:"os"`   // PRETTY_NAME of os-release
	Init     string        `json:"init"` // what PID 1 is
	Hostname string        `json:"hostname"`
	BootID   string        `json:"boot_id"`
	Uptime   time.Duration `json:"uptime"`
	MemTotal int64         `json:"mem_total"` // bytes
	MemAvail int64         `json:"mem_avail"` // bytes
	AgentRSS int64         `json:"agent_rss"` // bytes, agent and supervisor together
}
