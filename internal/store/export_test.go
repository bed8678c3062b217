package store

import (
	"context"
	"fmt"
)

// What a black box cannot reach.
var (
	ParseVM    = parseVM
	OpenSchema = open
)

// KeepOperations is how many operations are kept.
const KeepOperations = keepOperations

// KeepEvents is how many events are kept.
const KeepEvents = keepEvents

// Fill leaves the database no room to grow, as a full disk does.
func (s *Store) Fill(ctx context.Context) error {
	var pages int
	if err := s.write.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		return err
	}
	_, err := s.write.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
	return err
}
