package others

import (
	"context"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// firewalld is firewalld's zone of what is to pass. The accept is of its runtime configuration, which goes with firewalld.
func (o *Others) firewalld() place {
	const zone = "--zone=trusted"
	device := o.name + "+"
	add := []string{"firewall-cmd", zone, "--add-interface=" + device}
	return place{
		firewall: "firewalld", where: "zone trusted",
		rules: quote(add...),
		look: func(ctx context.Context) (has, of int, err error) {
			if there, err := firewalldTable(); err != nil || !there {
				return 0, 0, err
			}
			text, err := o.program(ctx, "firewall-cmd", zone, "--list-interfaces")
			if err != nil {
				return 0, 0, err
			}
			if slices.Contains(strings.Fields(text), device) {
				return 1, 1, nil
			}
			return 0, 1, nil
		},
		add:    o.change(add...),
		remove: o.change("firewall-cmd", zone, "--remove-interface="+device),
	}
}

// firewalldTable reports whether firewalld's table is there. What it was before nftables is not supported any more by itself.
func firewalldTable() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == "firewalld" }), err
}
