package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/vm"
)

// Create inserts a VM with the lease that pick chooses, the records that hold
// derives from the leased VM, and the operation that makes it. It returns the VM as it was stored. A
// taken name is fault.AlreadyExists.
func (s *Store) Create(ctx context.Context, v vm.VM, pick Picker, hold func(vm.VM) []vm.Record, o op.Operation) (vm.VM, error) {
	err := s.change(ctx, func(tx *sql.Tx) error {
		if err := unnamed(ctx, tx, v.Name); err != nil {
			return fault.From(err).WithOp("create VM", v.Name)
		}
		var err error
		if v.Lease, err = lease(ctx, tx, "", pick); err != nil {
			return err
		}
		if err := insertVM(ctx, tx, v); err != nil {
			return err
		}
		if err := moved(ctx, tx, nil, leased(v)); err != nil {
			return err
		}
		if err := putRecords(ctx, tx, hold(v)); err != nil {
			return err
		}
		if err := putOperation(ctx, tx, o); err != nil {
			return err
		}
		return tell(ctx, tx, event.OfArrival(v))
	}, func() { s.known.keep(v, false) })
	return v, err
}

// Commit applies a change as a whole. A VM that was removed meanwhile does not come back: then it is
// fault.NotFound. Removing it once more is success. A record that another VM holds is fault.InUse.
func (s *Store) Commit(ctx context.Context, c vm.Change) error {
	return s.change(ctx, func(tx *sql.Tx) error { return apply(ctx, tx, c) }, func() { s.known.keep(c.VM, c.Remove) })
}

// Relet is Commit for a VM that gets the lease that pick chooses, and keeps its records. It returns the VM as it was stored.
func (s *Store) Relet(ctx context.Context, c vm.Change, pick Picker) (vm.VM, error) {
	err := s.change(ctx, func(tx *sql.Tx) (err error) {
		if c.VM.Lease, err = lease(ctx, tx, c.VM.ID, pick); err != nil {
			return err
		}
		return apply(ctx, tx, c)
	}, func() { s.known.keep(c.VM, false) })
	return c.VM, err
}

func apply(ctx context.Context, tx *sql.Tx, c vm.Change) error {
	// An operation begins before what it does, and ends after it: so their events tell it.
	if c.Op != nil && !c.Op.State.Ended() {
		if err := putOperation(ctx, tx, *c.Op); err != nil {
			return err
		}
	}
	if err := applyVM(ctx, tx, c); err != nil {
		return err
	}
	if c.Op != nil && c.Op.State.Ended() {
		if err := putOperation(ctx, tx, *c.Op); err != nil {
			return err
		}
	}
	if c.Remove { // its records went with it
		return nil
	}
	if c.Drop != "" {
		if _, err := tx.ExecContext(ctx, "DELETE FROM records WHERE vm = ? AND until = ?", c.VM.ID, c.Drop); err != nil {
			return err
		}
	}
	return putRecords(ctx, tx, c.Hold)
}

// unnamed refuses a name that a VM has. It says not what the name was wanted for.
func unnamed(ctx context.Context, tx *sql.Tx, name string) error {
	var other string
	err := tx.QueryRowContext(ctx, "SELECT id FROM vms WHERE name = ?", name).Scan(&other)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = fault.New(fault.AlreadyExists, "the name is taken").
			WithHint("choose another name, or remove that VM with `banger vm delete %s`", name)
	}
	return err
}

// applyVM changes or removes the VM itself, and tells of it.
func applyVM(ctx context.Context, tx *sql.Tx, c vm.Change) error {
	before, err := stored(ctx, tx, c.VM.ID)
	if err != nil {
		return err
	}
	switch {
	case before == nil && c.Remove:
		return nil
	case before == nil:
		return fault.New(fault.NotFound, "it is no longer there").WithOp("change VM", c.VM.Name).WithHint("run `banger vm list` to see your VMs")
	case c.Remove:
		if _, err := tx.ExecContext(ctx, "DELETE FROM vms WHERE id = ?", c.VM.ID); err != nil {
			return err
		}
		if err := moved(ctx, tx, leased(*before), nil); err != nil {
			return err
		}
		return tell(ctx, tx, event.OfRemoval(*before))
	}
	if before.Name != c.VM.Name {
		if err := unnamed(ctx, tx, c.VM.Name); err != nil {
			return err
		}
	}
	if err := updateVM(ctx, tx, c.VM); err != nil {
		return err
	}
	if err := moved(ctx, tx, leased(*before), leased(c.VM)); err != nil {
		return err
	}
	return tell(ctx, tx, event.OfChange(*before, c.VM)...)
}

// Records returns the records of a VM, or with an empty id those of all.
func (s *Store) Records(ctx context.Context, id vm.ID) ([]vm.Record, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT vm, kind, name, until FROM records WHERE ? IN ('', vm) ORDER BY vm, kind, name", id)
	if err != nil {
		return nil, s.explain(err)
	}
	defer rows.Close()
	var out []vm.Record
	for rows.Next() {
		var r vm.Record
		if err := rows.Scan(&r.VM, &r.Kind, &r.Name, &r.Until); err != nil {
			return nil, s.explain(err)
		}
		out = append(out, r)
	}
	return out, s.explain(rows.Err())
}

func insertVM(ctx context.Context, tx *sql.Tx, v vm.VM) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO vms (id, name, owner, state, address, doc) VALUES (?, ?, ?, ?, ?, ?)",
		v.ID, v.Name, v.Owner, v.State, leased(v), string(doc))
	return err
}

func updateVM(ctx context.Context, tx *sql.Tx, v vm.VM) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE vms SET name = ?, owner = ?, state = ?, address = ?, doc = ? WHERE id = ?",
		v.Name, v.Owner, v.State, leased(v), string(doc), v.ID)
	return err
}

// leased is the address that no other VM may have; nil where there is none.
func leased(v vm.VM) any {
	if !v.Lease.Address.IsValid() {
		return nil
	}
	return v.Lease.Address.Addr().String()
}

// putRecords adds records. One that a verb has left behind is held again, never by two VMs at once:
// each would take the other's resource down.
func putRecords(ctx context.Context, tx *sql.Tx, records []vm.Record) error {
	for _, r := range records {
		done, err := tx.ExecContext(ctx, `INSERT INTO records (vm, kind, name, until) VALUES (?, ?, ?, ?)
			ON CONFLICT (kind, name) DO UPDATE SET until = excluded.until WHERE vm = excluded.vm`, r.VM, r.Kind, r.Name, r.Until)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			continue
		}
		var holder string
		err = tx.QueryRowContext(ctx, "SELECT vms.name FROM records JOIN vms ON vms.id = records.vm WHERE kind = ? AND records.name = ?", r.Kind, r.Name).Scan(&holder)
		if err != nil {
			return err
		}
		return fault.New(fault.InUse, "the VM %s holds it", holder).WithOp("hold "+string(r.Kind), r.Name).
			WithHint("delete that VM, or make yours anew: it gets other names")
	}
	return nil
}

// list decodes one document a row.
func list[T any](ctx context.Context, s *Store, query string, args ...any) ([]T, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain(err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var doc []byte
		if err := rows.Scan(&doc); err != nil {
			return nil, s.explain(err)
		}
		var v T
		if err := json.Unmarshal(doc, &v); err != nil {
			return nil, s.corrupt("a document in it cannot be read: %w", err)
		}
		out = append(out, v)
	}
	return out, s.explain(rows.Err())
}
