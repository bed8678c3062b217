package firewall

import (
	"bytes"
	"context"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

// SetNAT lets the guest behind a TAP out by the host's IPv4 addresses, or does not, whether or not the TAP is there any more. It
// goes by the kernel's tables alone, for who mends a host without the daemon: that has the last word when it comes back.
func (f *Firewall) SetNAT(ctx context.Context, tap string, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	known, err := dump(f.families.byName[setAddrs4])
	if err != nil {
		return f.explain("set NAT of", tap, err)
	}
	at := slices.IndexFunc(known, func(e nftables.SetElement) bool { return bytes.HasPrefix(e.Key, ifname(tap)) })
	if at < 0 {
		if !on {
			return nil // who is not known does not get out
		}
		return fault.New(fault.NotFound, "no guest is behind it").WithOp("set NAT of", tap).
			WithHint("`nft list set bridge %s %s` has those that there are", f.name, setAddrs4)
	}
	address := known[at].Key[len(ifname(tap)):]
	set := f.families.byName[setNAT4]
	element := []nftables.SetElement{{Key: address}}
	err = f.transact(func(c *nftables.Conn) error {
		if err := c.SetAddElements(set, element); err != nil || on { // also where it is to go, so that it can
			return err
		}
		return c.SetDeleteElements(set, element)
	})
	if err == nil && !on {
		if gone, ok := netip.AddrFromSlice(address); ok {
			err = flush(func(src, _ netip.Addr) bool { return src == gone }, end{unix.AF_INET, madeIt, gone})
		}
	}
	return f.explain("set NAT of", tap, err)
}
