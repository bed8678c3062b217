package vm

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"banger/internal/fault"
)

// Door is a TCP port of the host that leads to one of a VM's.
type Door struct {
	Listen netip.AddrPort // on the host; port 0 is one that is still to be chosen
	Port   uint16         // in the guest
}

// SettingPorts is the key of the setting that a VM's doors are kept in.
const SettingPorts = "ports"

// MaxDoors bounds those of one VM: each is a listener of the daemon's.
const MaxDoors = 64

// loopback is where a door listens of which nothing else is said.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

const doorHint = "write [[ADDRESS:]HOST_PORT:]GUEST_PORT, such as 8080:80, 0.0.0.0:8080:80 or [::1]:8080:80"

func badDoor(text, msg string, args ...any) error {
	return fault.New(fault.Invalid, msg, args...).WithOp("read port", text).WithHint(doorHint)
}

// ParseDoor reads [[ADDRESS:][HOST_PORT]:]GUEST_PORT. One number stands for both ports, and no host port, or 0, for one
// that is to be chosen.
func ParseDoor(text string) (Door, error) {
	spec, proto, named := strings.Cut(text, "/")
	if named && proto != "tcp" {
		return Door{}, badDoor(text, "%q is no protocol of doors: they are for TCP", proto)
	}
	listen, guest := spec, spec
	if at := strings.LastIndexByte(spec, ':'); at >= 0 {
		listen, guest = spec[:at], spec[at+1:]
	}
	addr, host := loopback, listen
	if at := strings.LastIndexByte(listen, ':'); at >= 0 {
		var err error
		if addr, err = doorAddress(text, listen[:at]); err != nil {
			return Door{}, err
		}
		host = listen[at+1:]
	}
	to, err := doorPort(text, guest)
	if err != nil {
		return Door{}, err
	}
	if to == 0 {
		return Door{}, badDoor(text, "the guest's port cannot be 0")
	}
	from := uint16(0)
	if host != "" {
		if from, err = doorPort(text, host); err != nil {
			return Door{}, err
		}
	}
	return Door{netip.AddrPortFrom(addr, from), to}, nil
}

func doorAddress(text, address string) (netip.Addr, error) {
	bare, bracketed := strings.CutPrefix(address, "[")
	if bracketed {
		bare, bracketed = strings.CutSuffix(bare, "]")
	}
	addr, err := netip.ParseAddr(bare)
	switch {
	case err != nil || addr.Is6() != bracketed:
		return addr, badDoor(text, "%q is no address", address)
	case addr.Zone() != "" || addr.Is4In6() || addr.IsMulticast():
		return addr, badDoor(text, "%s is no address that a door can listen on", addr)
	}
	return addr, nil
}

func doorPort(text, port string) (uint16, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, badDoor(text, "%q is no port number up to 65535", port)
	}
	return uint16(n), nil
}

// String writes it as ParseDoor reads it, as short as it can be without being taken for something else.
func (d Door) String() string {
	ports := strconv.Itoa(int(d.Listen.Port())) + ":" + strconv.Itoa(int(d.Port))
	switch addr := d.Listen.Addr(); {
	case addr == loopback:
		return ports
	case addr.Is6():
		return "[" + addr.String() + "]:" + ports
	default:
		return addr.String() + ":" + ports
	}
}

// Collides reports whether two doors cannot both be open.
func (d Door) Collides(o Door) bool {
	a, b := d.Listen.Addr(), o.Listen.Addr()
	return d.Listen.Port() == o.Listen.Port() && d.Listen.Port() != 0 && a.Is4() == b.Is4() &&
		(a == b || a.IsUnspecified() || b.IsUnspecified())
}

// is reports whether a person means this door: by its host port, where it listens, or all of it.
func (d Door) is(text string) bool {
	return text == strconv.Itoa(int(d.Listen.Port())) || text == d.Listen.String() || text == d.String() ||
		text == d.Listen.Addr().String()+":"+strconv.Itoa(int(d.Listen.Port()))+":"+strconv.Itoa(int(d.Port))
}

// Doors are those of a VM, in the order of their host ports.
type Doors []Door

// DoorsOf are those that a VM is to have. What cannot be read, as what a newer banger wrote may be, is none.
func DoorsOf(v VM) Doors {
	all, err := Doors(nil).Alter(v.Settings[SettingPorts])
	if err != nil {
		return nil
	}
	return all
}

// String writes them as Alter reads them.
func (ds Doors) String() string {
	texts := make([]string, len(ds))
	for i, d := range ds {
		texts[i] = d.String()
	}
	return strings.Join(texts, ",")
}

// Alter returns what a text makes of them: entries separated by commas, either doors, which are all that there are to be
// then, or each with a + before a door to add or a - before one to take away, which its host port is enough to name.
func (ds Doors) Alter(text string) (Doors, error) {
	if text == "" {
		return nil, nil
	}
	entries := strings.Split(text, ",")
	changes := 0
	for _, e := range entries {
		if strings.HasPrefix(e, "+") || strings.HasPrefix(e, "-") {
			changes++
		}
	}
	var out Doors
	switch changes {
	case 0:
	case len(entries):
		out = slices.Clone(ds)
	default:
		return nil, fault.New(fault.Invalid, "some are to be added or taken away, and others are to be all that there are").
			WithOp("read ports", text).WithHint("put + or - before each, or before none")
	}
	for _, e := range entries {
		var err error
		if gone, takes := strings.CutPrefix(e, "-"); takes {
			out, err = out.without(gone)
		} else {
			out, err = out.with(strings.TrimPrefix(e, "+"), ds)
		}
		if err != nil {
			return nil, err
		}
	}
	out.sort()
	return out, nil
}

func (ds Doors) sort() {
	slices.SortFunc(ds, func(a, b Door) int {
		return cmp.Or(cmp.Compare(a.Listen.Port(), b.Listen.Port()), a.Listen.Compare(b.Listen), cmp.Compare(a.Port, b.Port))
	})
}

// with adds a door. One whose host port is still to be chosen is that which there is already, if there is.
func (ds Doors) with(text string, before Doors) (Doors, error) {
	d, err := ParseDoor(text)
	if err != nil {
		return nil, err
	}
	if d.Listen.Port() == 0 {
		at := slices.IndexFunc(before, func(b Door) bool { return b.Listen.Addr() == d.Listen.Addr() && b.Port == d.Port })
		if at >= 0 {
			d = before[at]
		}
	}
	if slices.Contains(ds, d) {
		return ds, nil
	}
	for _, o := range ds {
		if d.Collides(o) {
			return nil, fault.New(fault.Invalid, "%s listens there too", o).WithOp("read port", text).WithHint("choose another host port")
		}
	}
	if len(ds) == MaxDoors {
		return nil, fault.New(fault.Invalid, "that is more than the %d that a VM can have", MaxDoors).WithOp("read port", text).
			WithHint("forward what is seldom needed with `banger vm forward`")
	}
	return append(ds, d), nil
}

func (ds Doors) without(text string) (Doors, error) {
	var named []string
	for _, d := range ds {
		if d.is(text) {
			named = append(named, d.String())
		}
	}
	switch {
	case len(named) == 0 && len(ds) == 0:
		return nil, fault.New(fault.NotFound, "it has no ports that lead to it").WithOp("remove port", text)
	case len(named) == 0:
		return nil, fault.New(fault.NotFound, "it has no such port").WithOp("remove port", text).WithHint("there are %s", ds)
	case len(named) > 1:
		return nil, fault.New(fault.Invalid, "it can mean %s", strings.Join(named, " or ")).WithOp("remove port", text).
			WithHint("say which")
	}
	return slices.DeleteFunc(ds, func(d Door) bool { return d.String() == named[0] }), nil
}

// Choose gives each door whose host port is still to be chosen one that free returns.
func (ds Doors) Choose(free func(netip.Addr) (uint16, error)) error {
	for i, d := range ds {
		if d.Listen.Port() != 0 {
			continue
		}
		port, err := free(d.Listen.Addr())
		if err != nil {
			return err
		}
		ds[i].Listen = netip.AddrPortFrom(d.Listen.Addr(), port)
	}
	ds.sort()
	return nil
}
