package network

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"banger/internal/fault"
	"banger/internal/vm"
)

// Egress is how far a guest's own connections may go beyond the host and the other VMs.
type Egress string

// The kinds of egress.
const (
	EgressAll  Egress = "all"
	EgressNone Egress = "none"
	EgressList Egress = "list" // to what its allow list has
)

// Egresses lists them all.
func Egresses() []Egress { return []Egress{EgressAll, EgressNone, EgressList} }

// ParseEgress reads one.
func ParseEgress(text string) (Egress, error) {
	if e := Egress(text); slices.Contains(Egresses(), e) {
		return e, nil
	}
	return "", fault.New(fault.Invalid, "it is no egress policy").WithOp("read egress", text).
		WithHint("choose all, none, or list, which lets out to what the allow list has")
}

// Allow is an allow list: where a guest may connect to under EgressList.
type Allow struct {
	Names    []string       // lower case, without a final dot; one that begins with "*." stands for all names below it
	Prefixes []netip.Prefix // of either family, masked
}

// MaxAllow bounds an allow list: what it has is in the kernel for each VM.
const MaxAllow = 256

const labels = `([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)`

var (
	hostPattern = regexp.MustCompile(`^(\*\.)?` + labels + `+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // of an allow list
	namePattern = regexp.MustCompile(`^` + labels + `*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// ParseAllow reads entries separated by commas, each a name, an address or a CIDR. What is there twice is there once.
func ParseAllow(text string) (Allow, error) {
	var a Allow
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		if p, ok, err := parsePrefix(entry); err != nil {
			return Allow{}, err
		} else if ok {
			a.Prefixes = append(a.Prefixes, p)
			continue
		}
		name := strings.TrimSuffix(strings.ToLower(entry), ".")
		if len(name) > 253 || !hostPattern.MatchString(name) {
			return Allow{}, badAllow(entry, "it is neither a name nor an address nor a CIDR")
		}
		a.Names = append(a.Names, name)
	}
	slices.Sort(a.Names)
	a.Names = slices.Compact(a.Names)
	slices.SortFunc(a.Prefixes, netip.Prefix.Compare)
	a.Prefixes = slices.Compact(a.Prefixes)
	if n := len(a.Names) + len(a.Prefixes); n > MaxAllow {
		return Allow{}, fault.New(fault.Invalid, "it has %d entries, at most %d are allowed", n, MaxAllow).WithOp("read allow list", "").
			WithHint("allow a CIDR, or all names below one by *.NAME, in place of many")
	}
	return a, nil
}

// parsePrefix reads what has the looks of an address; ok is false for anything else.
func parsePrefix(entry string) (p netip.Prefix, ok bool, err error) {
	if addr, err := netip.ParseAddr(entry); err == nil {
		if addr.Zone() != "" || addr.Is4In6() {
			return p, true, badAllow(entry, "it is no address that can be routed to")
		}
		return netip.PrefixFrom(addr, addr.BitLen()), true, nil
	}
	if !strings.Contains(entry, "/") {
		return p, false, nil
	}
	p, err = netip.ParsePrefix(entry)
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, true, badAllow(entry, "it is not a valid CIDR")
	case p != p.Masked():
		return p, true, fault.New(fault.Invalid, "it has address bits beyond its length").WithOp("read allow list", entry).WithHint("write %s", p.Masked())
	}
	return p, true, nil
}

func badAllow(entry, msg string) error {
	return fault.New(fault.Invalid, "%s", msg).WithOp("read allow list", entry).
		WithHint("such as example.com, *.example.com, 203.0.113.7 or 203.0.113.0/24")
}

// Edit is the list that a value makes of it: +ENTRY adds one, -ENTRY takes one away, several being separated by commas; any
// other value is a list in its place.
func (a Allow) Edit(value string) (Allow, error) {
	if value == "" || value[0] != '+' && value[0] != '-' {
		return ParseAllow(value)
	}
	entries := map[string]bool{}
	for entry := range strings.SplitSeq(a.String(), ",") {
		entries[entry] = true
	}
	for change := range strings.SplitSeq(value, ",") {
		change = strings.TrimSpace(change)
		if change == "" || change[0] != '+' && change[0] != '-' {
			return Allow{}, badAllow(change, "the others are added or taken away, and it is neither")
		}
		one, err := ParseAllow(change[1:])
		if err != nil {
			return Allow{}, err
		}
		if change[0] == '-' && !entries[one.String()] {
			return Allow{}, fault.New(fault.NotFound, "the allow list does not have it").WithOp("read allow list", change[1:]).
				WithHint("it has %s", orNothing(a.String()))
		}
		entries[one.String()] = change[0] == '+'
	}
	var kept []string
	for entry, keep := range entries {
		if keep {
			kept = append(kept, entry)
		}
	}
	return ParseAllow(strings.Join(kept, ","))
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// String writes it as ParseAllow reads it.
func (a Allow) String() string {
	entries := slices.Clone(a.Names)
	for _, p := range a.Prefixes {
		if p.IsSingleIP() {
			entries = append(entries, p.Addr().String())
		} else {
			entries = append(entries, p.String())
		}
	}
	return strings.Join(entries, ",")
}

// HasName reports whether a name, in lower case and without a final dot, may be asked for and connected to.
func (a Allow) HasName(name string) bool {
	if _, found := slices.BinarySearch(a.Names, name); found {
		return true
	}
	for rest := name; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return false
		}
		if _, found := slices.BinarySearch(a.Names, "*."+parent); found {
			return true
		}
		rest = parent
	}
}

// HasAddress reports whether a prefix of it has the address.
func (a Allow) HasAddress(addr netip.Addr) bool {
	return slices.ContainsFunc(a.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Policy is what a VM's owner lets it do on the network.
type Policy struct {
	Isolated bool // from other VMs
	NAT      bool // whether it gets out by the host's IPv4 addresses
	NAT6     bool // by its IPv6 ones
	Egress   Egress
	Allow    Allow // under EgressList
}

// Keys of the settings that a policy is made of, each of which a VM may leave to the instance.
const (
	SettingIsolated = "isolated"
	SettingNAT      = "nat"
	SettingNAT6     = "nat6"
	SettingEgress   = "egress"
	SettingAllow    = "allow"
)

// PolicyOf is a VM's policy where the instance's defaults are these. Settings that cannot be read, as those of a newer
// banger may be, let nothing out.
func PolicyOf(v vm.VM, defaults Policy) Policy {
	p := defaults
	flag := func(key string, into *bool) {
		if text, ok := v.Settings[key]; ok {
			*into = text == "on"
		}
	}
	flag(SettingIsolated, &p.Isolated)
	flag(SettingNAT, &p.NAT)
	flag(SettingNAT6, &p.NAT6)
	if text, ok := v.Settings[SettingEgress]; ok {
		e, err := ParseEgress(text)
		if err != nil {
			e = EgressNone
		}
		p.Egress = e
	}
	if text, ok := v.Settings[SettingAllow]; ok {
		a, err := ParseAllow(text)
		if err != nil {
			a = Allow{}
		}
		p.Allow = a
	}
	return p
}

// Guest is what the firewall and the DNS server know of a VM that runs: by what it is known on the network, and its policy.
type Guest struct {
	ID       vm.ID
	Name     string
	TAP      string
	Bridge   string
	MAC      string
	Address  netip.Addr
	Gateway  netip.Addr // the host's address towards it
	Address6 netip.Addr // not valid where it has none
	Gateway6 netip.Addr
	Policy   Policy
}

// GuestOf derives it.
func GuestOf(v vm.VM, defaults Policy) Guest {
	return Guest{
		ID: v.ID, Name: v.Name, TAP: v.Lease.TAP, Bridge: v.Lease.Bridge, MAC: v.Lease.MAC,
		Address: v.Lease.Address.Addr(), Gateway: v.Lease.Gateway,
		Address6: v.Lease.Address6.Addr(), Gateway6: v.Lease.Gateway6,
		Policy: PolicyOf(v, defaults),
	}
}
