package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/netip"

	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/op"
)

// keepOperations is how many operations are kept: of those that have ended, the newest.
const keepOperations = 1000

// SaveOperation stores an operation that changes no VM, with the news that it brings.
func (s *Store) SaveOperation(ctx context.Context, o op.Operation, news ...event.Event) error {
	return s.commit(ctx, func(tx *sql.Tx) error {
		if err := tell(ctx, tx, news...); err != nil {
			return err
		}
		return putOperation(ctx, tx, o)
	})
}

// Operations returns the newest operations, newest first.
func (s *Store) Operations(ctx context.Context, limit int) ([]op.Operation, error) {
	return list[op.Operation](ctx, s, "SELECT doc FROM operations ORDER BY created DESC LIMIT ?", limit)
}

// Operation returns one operation.
func (s *Store) Operation(ctx context.Context, id op.ID) (op.Operation, error) {
	found, err := list[op.Operation](ctx, s, "SELECT doc FROM operations WHERE id = ?", id)
	if err == nil && len(found) == 0 {
		err = fault.New(fault.NotFound, "no such operation").WithOp("find operation", string(id)).WithHint("run `banger op list`")
	}
	if err != nil {
		return op.Operation{}, err
	}
	return found[0], nil
}

// FailInterrupted ends operations that a dead daemon left under way. tried says in a person's words what
// a kind of operation does.
func (s *Store) FailInterrupted(ctx context.Context, tried func(kind string) string) error {
	left, err := list[op.Operation](ctx, s, "SELECT doc FROM operations WHERE state = ?", op.Underway)
	if err != nil {
		return err
	}
	return s.commit(ctx, func(tx *sql.Tx) error {
		for _, o := range left {
			ended := o.Finished(fault.New(fault.Internal, "the daemon ended while it ran").WithOp(tried(o.Kind), o.Name).
				WithHint("what it had made was finished or taken down; try again"))
			if err := putOperation(ctx, tx, ended); err != nil {
				return err
			}
		}
		return nil
	})
}

func putOperation(ctx context.Context, tx *sql.Tx, o op.Operation) error {
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	before, err := operationState(ctx, tx, o.ID)
	if err != nil {
		return err
	}
	if err := tell(ctx, tx, event.OfOperation(before, o)...); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO operations (id, owner, state, created, doc) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, doc = excluded.doc`, o.ID, o.Owner, o.State, o.Created.UnixNano(), string(doc))
	if err != nil || !o.State.Ended() {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM operations WHERE state <> ? AND
		created < (SELECT created FROM operations ORDER BY created DESC LIMIT 1 OFFSET ?)`, op.Underway, keepOperations-1)
	return err
}

// Subnet returns the instance's subnet, and whether one was ever chosen.
func (s *Store) Subnet(ctx context.Context) (netip.Prefix, bool, error) {
	return s.prefix(ctx, "subnet")
}

// SetSubnet notes the instance's subnet.
func (s *Store) SetSubnet(ctx context.Context, p netip.Prefix) error {
	return s.setMeta(ctx, "subnet", p.String())
}

// ULA returns the instance's IPv6 subnet, and whether one was ever chosen.
func (s *Store) ULA(ctx context.Context) (netip.Prefix, bool, error) { return s.prefix(ctx, "ula") }

// SetULA notes the instance's IPv6 subnet.
func (s *Store) SetULA(ctx context.Context, p netip.Prefix) error {
	return s.setMeta(ctx, "ula", p.String())
}

func (s *Store) prefix(ctx context.Context, key string) (netip.Prefix, bool, error) {
	text, ok, err := s.meta(ctx, key)
	if err != nil || !ok {
		return netip.Prefix{}, false, err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, false, s.corrupt("the %s in it is none: %w", key, err)
	}
	return p, true, nil
}

// Sysctls returns what settings of the kernel were before the instance changed them, by name; none where it changed none.
func (s *Store) Sysctls(ctx context.Context) (map[string]string, error) {
	text, ok, err := s.meta(ctx, "sysctls")
	if err != nil || !ok {
		return nil, err
	}
	var were map[string]string
	if err := json.Unmarshal([]byte(text), &were); err != nil {
		return nil, s.corrupt("the kernel's settings in it cannot be read: %w", err)
	}
	return were, nil
}

// SetSysctls notes them.
func (s *Store) SetSysctls(ctx context.Context, were map[string]string) error {
	text, err := json.Marshal(were)
	if err != nil {
		return err
	}
	return s.setMeta(ctx, "sysctls", string(text))
}

// Wiring reads how the host's resolver was told of VMs' names; false where it was not.
func (s *Store) Wiring(ctx context.Context, into any) (bool, error) {
	text, ok, err := s.meta(ctx, "wiring")
	if err != nil || !ok || text == "null" {
		return false, err
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return false, s.corrupt("the resolver's wiring in it cannot be read: %w", err)
	}
	return true, nil
}

// SetWiring notes it; nil is none.
func (s *Store) SetWiring(ctx context.Context, w any) error {
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return s.setMeta(ctx, "wiring", string(text))
}

func (s *Store) meta(ctx context.Context, key string) (string, bool, error) {
	var value string
	err := s.read.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return value, err == nil, s.explain(err)
}

func (s *Store) setMeta(ctx context.Context, key, value string) error {
	return s.commit(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
		return err
	})
}
