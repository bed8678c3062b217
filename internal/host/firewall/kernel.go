package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// chunk is how many elements one message has: with all that an element may have, 64 KiB have room for them.
const chunk = 100

// The buffers of a socket: a rebuild is sent in one piece, and each message of it is answered.
const (
	sendBuffer    = 256 << 20
	receiveBuffer = 8 << 20
)

// transact sends what fill says as one transaction of both tables. The socket stays open: when one is closed the kernel waits
// until no packet can see any more what was deleted, some 10 ms, and a DNS answer waits with it. f.mu is held.
func (f *Firewall) transact(fill func(c *nftables.Conn) error) (err error) {
	if f.conn == nil {
		f.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			return errors.Join(c.SetWriteBuffer(sendBuffer), c.SetReadBuffer(receiveBuffer))
		}))
		if err != nil {
			return err
		}
	}
	if err = fill(f.conn); err == nil {
		err = f.conn.Flush()
	}
	if err != nil {
		f.hangUp() // there may be more to read of it
	}
	return err
}

func (f *Firewall) hangUp() {
	if f.conn != nil {
		_ = f.conn.CloseLasting()
		f.conn = nil
	}
}

// build makes both tables anew in the transaction, without elements.
func (f *Firewall) build(c *nftables.Conn) error {
	for _, t := range []*nftables.Table{f.families.inet, f.families.bridge} {
		c.AddTable(t) // so that it can be deleted
		c.DelTable(t)
		c.AddTable(t)
	}
	for _, s := range f.families.sets {
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, ch := range f.chains {
		c.AddChain(ch.nft)
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: ch.nft.Table, Chain: ch.nft, Exprs: exprs})
		}
	}
	return nil
}

// put adds or deletes elements in the transaction.
func (f *Firewall) put(op func(*nftables.Set, []nftables.SetElement) error, all []element) error {
	bySet := map[string][]nftables.SetElement{}
	for _, e := range all {
		bySet[e.set] = append(bySet[e.set], nftables.SetElement{Key: []byte(e.key), KeyEnd: []byte(e.end)})
	}
	for _, s := range f.families.sets {
		if err := each(op, s, bySet[s.Name]); err != nil {
			return err
		}
	}
	return nil
}

func each(op func(*nftables.Set, []nftables.SetElement) error, s *nftables.Set, all []nftables.SetElement) error {
	for part := range slices.Chunk(all, chunk) {
		if err := op(s, part); err != nil {
			return fmt.Errorf("elements of %s: %w", s.Name, err)
		}
	}
	return nil
}

// dump lists a set's elements as the kernel has them; where the set is not there, as in the tables of another release, none.
func dump(s *nftables.Set) ([]nftables.SetElement, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	if there, err := exists(c, s.Table); err != nil || !there {
		return nil, err
	}
	sets, err := c.GetSets(s.Table)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	if !slices.ContainsFunc(sets, func(have *nftables.Set) bool { return have.Name == s.Name }) {
		return nil, nil
	}
	all, err := c.GetSetElements(s)
	if err != nil {
		return nil, fmt.Errorf("list set %s: %w", s.Name, err)
	}
	return all, nil
}

// exists looks for a table among all: the library does not let through what error the kernel has for one that is missing.
func exists(c *nftables.Conn, t *nftables.Table) (bool, error) {
	all, err := c.ListTablesOfFamily(t.Family)
	return slices.ContainsFunc(all, func(have *nftables.Table) bool { return have.Name == t.Name && have.Flags == 0 }), err
}

// generation is the number of transactions that the kernel's tables have seen, everyone's.
func generation() (uint32, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	answer, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4), // nfgenmsg
	})
	if err != nil {
		return 0, err
	}
	for _, m := range answer {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, errors.New("the kernel did not tell the generation of its tables")
}

// handles numbers the rules of each chain: a rule that somebody adds or makes anew has a number that was never there.
func (f *Firewall) handles() ([][]uint64, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all := make([][]uint64, len(f.chains))
	for _, t := range []*nftables.Table{f.families.inet, f.families.bridge} {
		if there, err := exists(c, t); err != nil || !there {
			return nil, err
		}
	}
	for i, ch := range f.chains {
		rules, err := c.GetRules(ch.nft.Table, ch.nft)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			all[i] = append(all[i], r.Handle)
		}
	}
	return all, nil
}

// millis rounds a time left up: the kernel counts in milliseconds and takes 0 for ever.
func millis(d time.Duration) time.Duration {
	return max(d.Round(time.Millisecond), time.Millisecond)
}
