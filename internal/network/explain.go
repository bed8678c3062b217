package network

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// IsVM reports whether a name, in lower case and without a final dot, is among those of VMs.
func IsVM(name string) bool { return strings.HasSuffix("."+name, "."+Domain) }

// Facts are what is known of the way from a guest to somewhere, as far as Explain asks for it.
type Facts struct {
	Guest   Guest
	Name    string // that is to be reached; "" where it is an address
	Unnamed string // why the guest is told no address of it; "" where it is told one
	Address netip.Addr
	Port    uint16

	Other    *Guest    // the guest whose address or name it is, if it is one's
	Route    Route     // of the host to it
	Learned  time.Time // until when the guest may connect to it because of a name that it was told; zero where it may not
	By       string    // that name
	Forwards bool      // whether the host's kernel forwards packets of the address's family
	Drops    []string  // other firewalls that drop what the host forwards, and have not been told to let VMs through
}

// Route is how the host would send a packet.
type Route struct {
	Local   bool       // to the host itself
	Device  string     // by which it leaves
	Gateway netip.Addr // not valid where the address is on the device's own network
	Source  netip.Addr // that it would have
	Err     string     // why there is none
}

// Step is one thing on the way that lets a packet pass, or does not.
type Step struct {
	Subject string `json:"subject" doc:"name, address, route, isolation, services, egress, kernel, other firewalls, NAT"`
	Passes  bool   `json:"passes"`
	Detail  string `json:"detail"`
	Rule    string `json:"rule,omitempty" doc:"chain and set of the instance's nftables table that say so"`
}

// Explanation says why a packet from a guest would arrive, or would not.
type Explanation struct {
	Address string `json:"address,omitempty"`
	Steps   []Step `json:"steps" doc:"up to the first that does not let it pass"`
	Passes  bool   `json:"passes"`
	Hint    string `json:"hint,omitempty" doc:"what would let it pass"`
}

// Explain goes the way of a guest's packet, up to the first step that does not let it pass.
func Explain(f Facts) Explanation {
	w := &way{f: f}
	if f.Address.IsValid() {
		w.out.Address = f.Address.String()
	}
	w.out.Passes = w.named() && w.allowed()
	return w.out
}

// way is an explanation in the making. Its steps return whether it goes on.
type way struct {
	f   Facts
	out Explanation
}

func (w *way) pass(subject, rule, format string, args ...any) bool {
	w.out.Steps = append(w.out.Steps, Step{subject, true, fmt.Sprintf(format, args...), rule})
	return true
}

func (w *way) stop(subject, rule, hint, format string, args ...any) bool {
	w.out.Steps = append(w.out.Steps, Step{subject, false, fmt.Sprintf(format, args...), rule})
	w.out.Hint = hint
	return false
}

// set is a hint that names a setting.
func (w *way) set(flags string) string { return "banger vm set " + w.f.Guest.Name + " " + flags }

func (w *way) named() bool {
	f := w.f
	switch {
	case f.Name == "":
		return true
	case f.Unnamed == "":
		return w.pass("name", "", "the guest is told %s", f.Address)
	case IsVM(f.Name) && f.Guest.Policy.Isolated:
		return w.isolated(f.Guest)
	case IsVM(f.Name) && f.Other != nil && f.Other.Policy.Isolated:
		return w.isolated(*f.Other)
	case IsVM(f.Name):
		return w.stop("name", "", "see `banger vm list`: a VM has a name while it runs", "%s", f.Unnamed)
	case f.Guest.Policy.Egress == EgressList && !f.Guest.Policy.Allow.HasName(f.Name):
		return w.stop("name", "", w.set("--allow +"+f.Name), "%s", WhyUnnamed(f.Guest.Policy))
	case f.Guest.Policy.Egress == EgressNone:
		return w.stop("name", "", w.set("--egress list --allow "+f.Name), "%s", WhyUnnamed(f.Guest.Policy))
	}
	return w.stop("name", "", "see whether the host itself finds it, and which resolvers /etc/resolv.conf has", "%s", f.Unnamed)
}

func (w *way) allowed() bool {
	f, a := w.f, w.f.Address
	switch {
	case Blocked(a):
		return w.stop("address", "from", "nothing does: have the host ask, and hand on what it is told", "%s", WhyRefused(f.Guest.Policy, a))
	case a == f.Guest.Address, a == f.Guest.Address6, a.IsLoopback():
		return w.pass("address", "", "it is the guest's own")
	case a.Is6() && !f.Guest.Address6.IsValid():
		return w.stop("address", "", "stop and start the VM, which gives it one", "the guest has no IPv6 address")
	case f.Other != nil:
		return w.neighbour()
	case f.Route.Local:
		return w.services()
	}
	return w.egress() && w.translated() && w.routed() && w.forwarded()
}

func (w *way) neighbour() bool {
	for _, g := range []Guest{w.f.Guest, *w.f.Other} {
		if g.Policy.Isolated {
			return w.isolated(g)
		}
	}
	return w.pass("isolation", "neighbours", "it is %s's, and neither of the two is isolated", w.f.Other.Name)
}

func (w *way) isolated(g Guest) bool {
	return w.stop("isolation", "neighbours, set isolated", "banger vm set "+g.Name+" --isolated off", "%s is isolated from other VMs", g.Name)
}

// services are those of the host that guests may use.
func (w *way) services() bool {
	gateway := w.f.Address == w.f.Guest.Gateway || w.f.Address == w.f.Guest.Gateway6
	switch {
	case gateway && w.f.Port == dnsPort:
		return w.pass("services", "services", "the gateway answers DNS")
	case gateway && w.f.Port == 0:
		return w.pass("services", "services", "the gateway answers pings; of its ports only DNS (53) is open to guests")
	case gateway:
		return w.stop("services", "services", "have the host connect to the guest instead: `banger vm port add`, `ssh -R`", "of the gateway's ports only DNS (53) is open to guests")
	}
	return w.stop("services", "host", "have the host connect to the guest instead: `banger vm port add`, `ssh -R`", "it is the host's own, whose services are closed to guests")
}

const dnsPort = 53

func (w *way) egress() bool {
	p, a := w.f.Guest.Policy, w.f.Address
	family := "4"
	if a.Is6() {
		family = "6"
	}
	switch {
	case p.Egress == EgressAll:
		return w.pass("egress", "from, set open"+family, "egress is all")
	case p.Egress == EgressNone:
		return w.stop("egress", "from", w.set("--egress list --allow "+w.entry()), "egress is none")
	case p.Allow.HasAddress(a):
		return w.pass("egress", "from, set allow"+family, "egress is list, and the allow list has it")
	case !w.f.Learned.IsZero():
		return w.pass("egress", "from, set learned"+family, "egress is list, and the guest was told it for %s, which the allow list has", w.f.By)
	}
	return w.stop("egress", "from", w.set("--allow +"+w.entry()), "egress is list, and no entry of the allow list has it")
}

// entry is what would be added to the allow list.
func (w *way) entry() string {
	if w.f.Name != "" {
		return w.f.Name
	}
	return w.f.Address.String()
}

func (w *way) translated() bool {
	p := w.f.Guest.Policy
	switch {
	case w.f.Address.Is4() && !p.NAT:
		return w.stop("NAT", "from, set nat4", w.set("--nat on"), "nat is off, and nobody out there could answer the guest's own address")
	case w.f.Address.Is6() && !p.NAT6:
		return w.stop("NAT", "from, set nat6", w.set("--nat6 on"), "nat6 is off, and nobody out there could answer the guest's own address")
	case w.f.Route.Source.IsValid():
		return w.pass("NAT", "postrouting", "it leaves with the host's address %s", w.f.Route.Source)
	}
	return w.pass("NAT", "postrouting", "it leaves with an address of the host's")
}

func (w *way) routed() bool {
	r := w.f.Route
	switch {
	case r.Err != "":
		return w.stop("route", "", "see `ip route get "+w.f.Address.String()+"` on the host", "the host has no route to it: %s", r.Err)
	case r.Gateway.IsValid():
		return w.pass("route", "", "by %s, through %s", r.Device, r.Gateway)
	}
	return w.pass("route", "", "by %s", r.Device)
}

func (w *way) forwarded() bool {
	if !w.f.Forwards {
		setting := "net.ipv4.ip_forward"
		if w.f.Address.Is6() {
			setting = "net.ipv6.conf.all.forwarding"
		}
		return w.stop("kernel", "", "somebody turned it off: start the VM again, or `sysctl -w "+setting+"=1`", "the host's kernel does not forward packets")
	}
	if !w.pass("kernel", "", "the host's kernel forwards packets") {
		return false
	}
	if len(w.f.Drops) > 0 {
		return w.stop("other firewalls", "", "see `banger doctor`", "%s drops what the host forwards", strings.Join(w.f.Drops, ", "))
	}
	return w.pass("other firewalls", "", "none drops it")
}
