package dns

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// ResolvConf finds the host's resolvers in its resolv.conf, which is read again when it changes.
type ResolvConf struct {
	Path string // /etc/resolv.conf
	Stub string // where systemd-resolved names the servers that it asks itself: /run/systemd/resolve/resolv.conf
	Own  func(netip.AddrPort) bool

	mu   sync.Mutex
	seen [2]mark
	kept []netip.AddrPort
}

// mark is how a file looks without being read.
type mark struct {
	at   time.Time
	size int64
}

func look(path string) mark {
	st, err := os.Stat(path)
	if err != nil {
		return mark{}
	}
	return mark{st.ModTime(), st.Size()}
}

// Servers returns them, but for this daemon itself, which would ask itself for ever.
func (r *ResolvConf) Servers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := [2]mark{look(r.Path), look(r.Stub)}; now != r.seen || now[0] == (mark{}) {
		r.seen, r.kept = now, r.read()
	}
	var out []netip.AddrPort
	for _, s := range r.kept {
		if !r.Own(s) {
			out = append(out, s)
		}
	}
	return out
}

// read reads the file, or what stands behind systemd-resolved's stub where that is all that it names: the stub would answer guests with names that are
// this host's own.
func (r *ResolvConf) read() []netip.AddrPort {
	text, err := os.ReadFile(r.Path)
	if err != nil {
		return nil
	}
	servers := nameservers(string(text))
	for _, s := range servers {
		if !isStub(s.Addr()) {
			return servers
		}
	}
	if text, err = os.ReadFile(r.Stub); err == nil {
		if behind := nameservers(string(text)); len(behind) > 0 {
			return behind
		}
	}
	return servers
}

func isStub(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

// nameservers reads a resolv.conf.
func nameservers(text string) []netip.AddrPort {
	const port = 53
	var out []netip.AddrPort
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, port))
		}
	}
	return out
}
