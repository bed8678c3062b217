package network

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"banger/internal/fault"
)

// Destination is where a connection is to go: a name or an address, and a port that is 0 where none was given.
type Destination struct {
	Name    string     // lower case, without a final dot; "" where it is an address
	Address netip.Addr // not valid where it is a name
	Port    uint16
}

// ParseDestination reads HOST, HOST:PORT or a URL. A name of one label is a VM's, as guests look it up.
func ParseDestination(text string) (Destination, error) {
	bad := func(msg string) (Destination, error) {
		return Destination{}, fault.New(fault.Invalid, "%s", msg).WithOp("read destination", text).
			WithHint("such as example.com:443, 203.0.113.7, [2001:db8::1]:22 or https://example.com")
	}
	host, port := text, ""
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil {
			return bad("it is not a valid URL")
		}
		host, port = u.Hostname(), u.Port()
		if known := map[string]string{"http": "80", "https": "443", "ssh": "22", "git": "9418"}[u.Scheme]; port == "" {
			port = known
		}
	} else if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	}
	var d Destination
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad("the port is not a number from 1 to 65535")
		}
		d.Port = uint16(n)
	}
	host = strings.Trim(host, "[]")
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return bad("it has a zone, which means something to one machine only")
		}
		d.Address = a.Unmap()
		return d, nil
	}
	d.Name = strings.TrimSuffix(strings.ToLower(host), ".")
	if d.Name == "localhost" {
		return Destination{Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: d.Port}, nil
	}
	if len(d.Name) > 253 || !namePattern.MatchString(d.Name) {
		return bad("it is neither a name nor an address")
	}
	if !strings.Contains(d.Name, ".") {
		d.Name += "." + Domain
	}
	return d, nil
}

// String writes it as ParseDestination reads it.
func (d Destination) String() string {
	host := d.Name
	if d.Address.IsValid() {
		host = d.Address.String()
	}
	if d.Port == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(d.Port)))
}
