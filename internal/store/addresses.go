package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"time"

	"banger/internal/vm"
)

// rest is how long an address that a VM gave up stays unused while there are others: longer than whatever remembers who
// had it, such as ARP entries, names that were resolved, and connections that are kept.
const rest = 10 * time.Minute

// Picker chooses a lease whose address is none of those that VMs have, and rather none of those that rest, of which the
// first has done so for the longest time.
type Picker = func(taken, resting []netip.Addr) (vm.Lease, error)

// lease has pick choose for a VM, whose own address is free to it.
func lease(ctx context.Context, tx *sql.Tx, id vm.ID, pick Picker) (vm.Lease, error) {
	taken, err := addresses(ctx, tx, "SELECT address FROM vms WHERE address IS NOT NULL AND id <> ?", id)
	if err != nil {
		return vm.Lease{}, err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM released WHERE at <= ?", time.Now().Add(-rest).UnixNano()); err != nil {
		return vm.Lease{}, err
	}
	resting, err := addresses(ctx, tx, "SELECT address FROM released ORDER BY at, address")
	if err != nil {
		return vm.Lease{}, err
	}
	return pick(taken, resting)
}

// moved notes what a change of a VM's lease does to its addresses. Nil is an address of none.
func moved(ctx context.Context, tx *sql.Tx, from, to any) error {
	if from == to {
		return nil
	}
	if from != nil {
		_, err := tx.ExecContext(ctx, "INSERT INTO released (address, at) VALUES (?, ?) ON CONFLICT (address) DO UPDATE SET at = excluded.at", from, time.Now().UnixNano())
		if err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM released WHERE address = ?", to)
	return err
}

func addresses(ctx context.Context, tx *sql.Tx, query string, args ...any) ([]netip.Addr, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []netip.Addr
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("stored address: %w", err)
		}
		out = append(out, a)
	}
	return out, rows.Err()
}
