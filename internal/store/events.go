package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"banger/internal/event"
	"banger/internal/op"
	"banger/internal/vm"
)

// keepEvents is how many events are kept: the newest.
const keepEvents = 10_000

// Note stores news that no other change brings with it.
func (s *Store) Note(ctx context.Context, news ...event.Event) error {
	return s.commit(ctx, func(tx *sql.Tx) error { return tell(ctx, tx, news...) })
}

// Events returns the events after an id, at most limit of them. Where not all of them are kept, a gap stands
// first, and after it comes the oldest that is. That is so too for an id that this database has not reached:
// it is another's, which was lost.
func (s *Store) Events(ctx context.Context, after int64, limit int) (event.Page, error) {
	// One statement, so that nothing is forgotten between a look at what is kept and reading it.
	rows, err := s.read.QueryContext(ctx, `
		WITH kept (lo, hi) AS (SELECT coalesce((SELECT min(id) FROM events), 1), coalesce((SELECT max(id) FROM events), 0)),
		news AS (SELECT id, doc FROM events WHERE id > iif(?1 > (SELECT hi FROM kept), 0, ?1) ORDER BY id LIMIT ?2)
		SELECT kept.lo, kept.hi, news.id, news.doc FROM kept LEFT JOIN news ORDER BY news.id`, after, limit)
	if err != nil {
		return event.Page{}, s.explain(err)
	}
	defer rows.Close()
	page, read := event.Page{}, 0
	for first := true; rows.Next(); first = false {
		var lo, hi int64
		var id sql.NullInt64
		var doc sql.NullString
		if err := rows.Scan(&lo, &hi, &id, &doc); err != nil {
			return event.Page{}, s.explain(err)
		}
		if first && (after > hi || after < lo-1) {
			page.Events = append(page.Events, event.OfGap(lo-1, time.Now()))
		}
		if !id.Valid { // nothing has happened since
			page.Next = hi
			continue
		}
		var e event.Event
		if err := json.Unmarshal([]byte(doc.String), &e); err != nil {
			return event.Page{}, s.corrupt("an event in it cannot be read: %w", err)
		}
		e.ID, page.Next = id.Int64, id.Int64
		page.Events = append(page.Events, e)
		read++
	}
	page.More = read == limit
	return page, s.explain(rows.Err())
}

// LastEvent returns the id of the newest event; zero before the first.
func (s *Store) LastEvent(ctx context.Context) (id int64, err error) {
	err = s.read.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM events").Scan(&id)
	return id, s.explain(err)
}

// EventBefore returns the id after which the events come that happened since a time, as far as they are kept.
func (s *Store) EventBefore(ctx context.Context, since time.Time) (id int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce((SELECT min(id) - 1 FROM events WHERE at >= ?),
		(SELECT max(id) FROM events), 0)`, since.UnixNano()).Scan(&id)
	return id, s.explain(err)
}

// Changed returns a channel that is closed at the next commit. Take it before you read: then what comes later
// is not slept through.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// wake tells those who wait that something was committed.
func (s *Store) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// tell stores events with the change that they are about, and forgets the oldest.
func tell(ctx context.Context, tx *sql.Tx, news ...event.Event) error {
	if len(news) == 0 {
		return nil
	}
	now := time.Now()
	var newest int64
	for _, e := range news {
		e.Time = now
		doc, err := json.Marshal(e)
		if err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, "INSERT INTO events (at, doc) VALUES (?, ?)", now.UnixNano(), string(doc))
		if err != nil {
			return err
		}
		if newest, err = done.LastInsertId(); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM events WHERE id <= ?", newest-keepEvents)
	return err
}

// stored returns a VM as it is before a change; nil when there is none.
func stored(ctx context.Context, tx *sql.Tx, id vm.ID) (*vm.VM, error) {
	var doc string
	err := tx.QueryRowContext(ctx, "SELECT doc FROM vms WHERE id = ?", id).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // that there is none is no error
	}
	if err != nil {
		return nil, err
	}
	v := new(vm.VM)
	return v, json.Unmarshal([]byte(doc), v)
}

// operationState returns what is known of an operation; empty when nothing is.
func operationState(ctx context.Context, tx *sql.Tx, id op.ID) (state op.State, err error) {
	err = tx.QueryRowContext(ctx, "SELECT state FROM operations WHERE id = ?", id).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return state, err
}
