// Package config reads banger's configuration. Later layers win: the system's file, the user's, the
// checkout's banger.toml, the environment (BANGER_*), flags.
//
// Files are TOML and strict: an unknown key names its line and the nearest known key.
package config

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/adrg/xdg"

	"banger/internal/fault"
	"banger/internal/network"
	"banger/internal/vm"
)

// File is what the system's file may hold.
type File struct {
	Socket string `toml:"socket"`  // the daemon's
	SSHKey string `toml:"ssh_key"` // private key file; empty makes one
	VM     VM     `toml:"vm"`
	Daemon Daemon `toml:"daemon"` // only the daemon goes by it, and by what follows

	Storage   Storage   `toml:"storage"`
	Network   Network   `toml:"network"`
	DNS       DNS       `toml:"dns"`
	Metrics   Metrics   `toml:"metrics"`
	Admission Admission `toml:"admission"`
	Quota     Quota     `toml:"quota"`
	// UserQuota has what stands in place of Quota for some users, by uid.
	UserQuota map[string]Quota `toml:"user_quota"`
}

// User is what a user's file may hold: the daemon does not read it.
type User struct {
	Socket string `toml:"socket"`
	SSHKey string `toml:"ssh_key"`
	VM     VM     `toml:"vm"`
}

// Project is what a checkout's banger.toml may hold: a checkout is someone else's word, and must not
// choose keys or daemons.
type Project struct {
	VM VM `toml:"vm"`
}

// VM holds defaults for new VMs. Zero values leave the choice to the next layer below.
type VM struct {
	Image    string   `toml:"image"`
	VCPU     int      `toml:"vcpu"`
	Memory   Size     `toml:"memory"`
	RootDisk Size     `toml:"root_disk"`
	WorkDisk Size     `toml:"work_disk"`
	Timezone Timezone `toml:"timezone"` // empty is the host's
	Locale   Locale   `toml:"locale"`
}

// Daemon configures bangerd.
type Daemon struct {
	StateDir       string   `toml:"state_dir"`
	RuntimeDir     string   `toml:"runtime_dir"`
	Group          string   `toml:"group"`           // whose members may use the socket
	FirecrackerBin string   `toml:"firecracker_bin"` // empty finds it in PATH
	AgentBin       string   `toml:"agent_bin"`       // empty finds it beside bangerd or in ../lib/banger
	LogLevel       Level    `toml:"log_level"`       // debug, info, warn or error
	Subnet         string   `toml:"subnet"`          // CIDR; empty chooses one that is free
	Mirror         string   `toml:"mirror"`          // Debian mirror; empty leaves it to mmdebstrap
	BootTimeout    Duration `toml:"boot_timeout"`
	StopTimeout    Duration `toml:"stop_timeout"`
	TrashGrace     Duration `toml:"trash_grace"` // how long a deleted VM can be restored
	Warm           Warm     `toml:"warm"`
	TAPPool        int      `toml:"tap_pool"` // how many spare TAPs are kept ready; 0 is none
}

// Warm says whether snapshots that creates go on from are prepared without being asked for: "auto" or "off".
type Warm struct{ Off bool }

// UnmarshalText implements encoding.TextUnmarshaler.
func (w *Warm) UnmarshalText(text []byte) error {
	switch string(text) {
	case "auto":
		w.Off = false
	case "off":
		w.Off = true
	default:
		return fault.New(fault.Invalid, "it is neither auto nor off").WithOp("read", string(text)).
			WithHint("auto has a snapshot prepared of each image and size that VMs are created of, off only where `banger image warm` asks for it")
	}
	return nil
}

// Storage says how VMs' disks are kept.
type Storage struct {
	RootBackend RootBackend `toml:"root_backend"`
}

// RootBackend is how root overlays of new VMs are kept: "reflink", "dm-snapshot" or "copy". "auto", its zero value, leaves that to the host.
type RootBackend struct{ vm.RootBackend }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *RootBackend) UnmarshalText(text []byte) error {
	switch wish := vm.RootBackend(text); wish {
	case "auto":
		b.RootBackend = ""
	case vm.RootReflink, vm.RootSnapshot, vm.RootCopy:
		b.RootBackend = wish
	default:
		return fault.New(fault.Invalid, "it is no way of keeping a root overlay").WithOp("read", string(text)).
			WithHint("choose auto, reflink, dm-snapshot or copy")
	}
	return nil
}

// Network is what VMs may do on the network whose owners say nothing else.
type Network struct {
	Isolated bool   `toml:"isolated"` // from each other
	NAT      bool   `toml:"nat"`
	NAT6     bool   `toml:"nat6"`
	Egress   Egress `toml:"egress"`
	Allow    Allow  `toml:"allow"`
}

// policy is these settings as everybody but this package sees them.
func (n Network) policy() network.Policy {
	return network.Policy{Isolated: n.Isolated, NAT: n.NAT, NAT6: n.NAT6, Egress: n.Egress.Egress, Allow: n.Allow.Allow}
}

// Egress is how far guests may connect: "all", "none" or "list".
type Egress struct{ network.Egress }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Egress) UnmarshalText(text []byte) (err error) {
	e.Egress, err = network.ParseEgress(string(text))
	return err
}

// Allow is an allow list: names, addresses and CIDRs, separated by commas.
type Allow struct{ network.Allow }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Allow) UnmarshalText(text []byte) (err error) {
	a.Allow, err = network.ParseAllow(string(text))
	return err
}

// DNS says where the host's programs can ask for VMs by their names.
type DNS struct {
	Listen Loopback `toml:"listen"` // where another has that port, one of the next
}

// Metrics says where the daemon's figures can be read besides its socket.
type Metrics struct {
	Listen Loopback `toml:"listen"` // the zero value is nowhere
}

// Loopback is an address and a port that only this host can reach.
type Loopback struct{ netip.AddrPort }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Loopback) UnmarshalText(text []byte) error {
	addr, err := netip.ParseAddrPort(string(text))
	bad := func(msg string) error {
		return fault.New(fault.Invalid, "%s", msg).WithOp("read address", string(text)).WithHint("write one such as 127.0.0.1:9400, or [::1]:9400")
	}
	switch {
	case err != nil:
		return bad("it is no IP address with a port")
	case !addr.Addr().Unmap().IsLoopback():
		return bad("it is no loopback address: this is for the host only")
	case addr.Port() == 0:
		return bad("the port is missing")
	}
	l.AddrPort = addr
	return nil
}

// Admission says how much VMs may take of the host.
type Admission struct {
	MemoryOvercommit Factor `toml:"memory_overcommit"`
	LowWater         Size   `toml:"low_water"` // zero leaves it to admission.Rules
}

// Quota bounds what the VMs of each owner may take together. Zero is no bound.
type Quota struct {
	VMs    int  `toml:"vms"`
	VCPU   int  `toml:"vcpu"`
	Memory Size `toml:"memory"`
	Disk   Size `toml:"disk"`
}

// Size is a number of bytes, written with a unit: "512M".
type Size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := vm.ParseSize(string(text))
	*s = Size(n)
	return err
}

// Timezone is a name of the IANA time zone database. It is no string, since the decoder asks those nothing.
type Timezone struct{ Name string }

// UnmarshalText implements encoding.TextUnmarshaler.
func (z *Timezone) UnmarshalText(text []byte) error {
	z.Name = string(text)
	return vm.CheckTimezone(z.Name)
}

// Locale is a locale's name, as in LANG.
type Locale struct{ Name string }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Locale) UnmarshalText(text []byte) error {
	l.Name = string(text)
	return vm.CheckLocale(l.Name)
}

// Duration is a time span, written as "90s" or "2m".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fault.New(fault.Invalid, "it is not a time span").WithOp("read", string(text)).WithHint("write a number with a unit, such as 90s or 2m")
	}
	*d = Duration(v)
	return nil
}

// Factor multiplies, written as a number with a point.
type Factor float64

// check refuses what multiplies nothing, or what nobody can mean.
func (f Factor) check() error {
	if f >= 0.1 && f <= 100 {
		return nil
	}
	return fault.New(fault.Invalid, "it is out of range").WithOp("read", strconv.FormatFloat(float64(f), 'g', -1, 64)).
		WithHint("choose 0.1 to 100; 1.0 gives VMs the memory that there is")
}

// Level is how much the daemon logs.
type Level slog.Level

// UnmarshalText implements encoding.TextUnmarshaler. slog's own takes "INFO+2" too, which is nobody's wish.
func (l *Level) UnmarshalText(text []byte) error {
	switch string(text) {
	case "debug":
		*l = Level(slog.LevelDebug)
	case "info":
		*l = Level(slog.LevelInfo)
	case "warn":
		*l = Level(slog.LevelWarn)
	case "error":
		*l = Level(slog.LevelError)
	default:
		return fault.New(fault.Invalid, "it is no log level").WithOp("read", string(text)).WithHint("choose debug, info, warn or error")
	}
	return nil
}

// Client is what the CLI goes by.
type Client struct {
	Socket string
	SSHKey string
	VM     Defaults
}

// Defaults are what new VMs get where flags say nothing. Zero leaves it to the daemon.
type Defaults struct {
	Image    string
	VCPU     int
	Memory   int64 // bytes
	RootDisk int64 // bytes
	WorkDisk int64 // bytes
	Timezone string
	Locale   string
}

// defaults are these settings as everybody but this package sees them.
func (v VM) defaults() Defaults {
	return Defaults{
		Image: v.Image, VCPU: v.VCPU,
		Memory: int64(v.Memory), RootDisk: int64(v.RootDisk), WorkDisk: int64(v.WorkDisk),
		Timezone: v.Timezone.Name, Locale: v.Locale.Name,
	}
}

// Names of files.
const (
	SystemFile  = "/etc/banger/config.toml"
	ProjectFile = "banger.toml"
	SocketName  = "bangerd.sock"
)

// Load reads the client's configuration. socket is the flag's value; empty takes the layers'.
func Load(socket string) (Client, error) { return load(SystemFile, socket) }

func load(system, socket string) (Client, error) {
	var f File
	if err := read(system, &f); err != nil {
		return Client{}, err
	}
	user := User{Socket: f.Socket, SSHKey: f.SSHKey, VM: f.VM}
	if err := read(userFile(), &user); err != nil {
		return Client{}, err
	}
	f.Socket, f.SSHKey = user.Socket, user.SSHKey
	project := Project{VM: user.VM}
	if path := findProject(); path != "" {
		if err := read(path, &project); err != nil {
			return Client{}, err
		}
	}
	f.VM = project.VM
	if err := environment(os.LookupEnv, clientKeys(&f)); err != nil {
		return Client{}, err
	}
	if socket != "" {
		f.Socket = socket
	}
	if f.Socket == "" && f.Daemon.RuntimeDir != "" {
		f.Socket = filepath.Join(f.Daemon.RuntimeDir, SocketName)
	}
	if f.Socket == "" {
		f.Socket = findSocket()
	}
	return Client{Socket: expand(f.Socket), SSHKey: expand(f.SSHKey), VM: f.VM.defaults()}, nil
}

// Served is what the daemon goes by.
type Served struct {
	Daemon
	Socket    string
	Storage   Storage
	Network   network.Policy
	DNS       netip.AddrPort
	Metrics   netip.AddrPort // invalid is nowhere
	VM        Defaults
	Admission Admission
	Quota     Quota
	UserQuota map[int]Quota // by uid
}

// LoadDaemon reads the daemon's configuration: the system's file, then the environment. systemd's
// STATE_DIRECTORY and RUNTIME_DIRECTORY stand in for directories that nobody set.
func LoadDaemon(path string) (Served, error) {
	f := defaults()
	if err := read(path, &f); err != nil {
		return Served{}, err
	}
	if err := environment(os.LookupEnv, append(clientKeys(&f), daemonKeys(&f)...)); err != nil {
		return Served{}, err
	}
	if err := f.Admission.MemoryOvercommit.check(); err != nil {
		return Served{}, fault.New(fault.Invalid, "admission.memory_overcommit: %w", err).WithOp("read configuration", path).WithHint("%s", fault.From(err).Hint)
	}
	if n := f.Daemon.TAPPool; n < 0 || n > vm.MaxSpares {
		return Served{}, fault.New(fault.Invalid, "daemon.tap_pool: it is out of range: %d", n).WithOp("read configuration", path).WithHint("choose 0, which keeps none, to %d", vm.MaxSpares)
	}
	users, err := byUID(f.UserQuota)
	if err != nil {
		return Served{}, fault.From(err).InOp("read configuration", path)
	}
	d := &f.Daemon
	d.StateDir = first(d.StateDir, os.Getenv("STATE_DIRECTORY"), stateHome())
	d.RuntimeDir = first(d.RuntimeDir, os.Getenv("RUNTIME_DIRECTORY"), runtimeHome())
	f.Socket = first(f.Socket, filepath.Join(d.RuntimeDir, SocketName))
	for _, p := range []*string{&d.StateDir, &d.RuntimeDir, &f.Socket} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return Served{}, err
		}
		*p = abs
	}
	return Served{Daemon: *d, Socket: f.Socket, Storage: f.Storage, Network: f.Network.policy(), DNS: f.DNS.Listen.AddrPort, Metrics: f.Metrics.Listen.AddrPort, Admission: f.Admission, Quota: f.Quota, UserQuota: users, VM: f.VM.defaults()}, nil
}

// byUID reads the names of tables as users.
func byUID(quotas map[string]Quota) (map[int]Quota, error) {
	users := map[int]Quota{}
	for name, q := range quotas {
		uid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return nil, fault.New(fault.Invalid, "user_quota.%s: it is no uid", name).WithHint("write a number, as `id -u NAME` prints it")
		}
		users[int(uid)] = q
	}
	return users, nil
}

// defaults is what the daemon goes by where nobody says anything.
func defaults() File {
	return File{
		VM:      VM{Image: "debian:12", VCPU: 2, Memory: Size(vm.GiB), WorkDisk: Size(8 * vm.GiB), Locale: Locale{"C.UTF-8"}},
		Daemon:  Daemon{Group: "banger", LogLevel: Level(slog.LevelInfo), BootTimeout: Duration(time.Minute), StopTimeout: Duration(30 * time.Second), TrashGrace: Duration(7 * 24 * time.Hour), TAPPool: 4},
		DNS:     DNS{Loopback{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 42069)}},
		Network: Network{NAT: true, Egress: Egress{network.EgressAll}},
		// A guest comes to its full memory in time; what is beyond the host's ends with a killed VM.
		Admission: Admission{MemoryOvercommit: 1},
	}
}

func userFile() string { return filepath.Join(xdg.ConfigHome, "banger", "config.toml") }

// findProject looks for banger.toml from the working directory up to the checkout's root.
func findProject() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		path := filepath.Join(dir, ProjectFile)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil || dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}

// findSocket prefers the system's daemon, then one that this user runs.
func findSocket() string {
	system, own := filepath.Join("/run/banger", SocketName), filepath.Join(runtimeHome(), SocketName)
	if _, err := os.Stat(system); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(own); err == nil || os.Geteuid() == 0 {
			return own
		}
	}
	return system
}

func stateHome() string {
	if os.Geteuid() == 0 {
		return "/var/lib/banger"
	}
	return filepath.Join(xdg.StateHome, "banger")
}

func runtimeHome() string {
	if dir := os.Getenv("BANGER_RUNTIME_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/run/banger"
	}
	return filepath.Join(xdg.RuntimeDir, "banger")
}

func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(xdg.Home, rest)
	}
	return path
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// maxFile bounds a configuration file.
const maxFile = 1 << 20

func read(path string, into any) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.System(err, "read configuration", path)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fault.System(err, "read configuration", path)
	}
	if len(text) > maxFile {
		return fault.New(fault.Invalid, "it is larger than %s", vm.FormatSize(maxFile)).WithOp("read configuration", path)
	}
	return decode(path, text, into)
}
