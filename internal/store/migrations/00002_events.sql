-- +goose Up
-- News of what has changed, written with the change. An id is never used again, also when all are gone.
CREATE TABLE events (
  id  INTEGER PRIMARY KEY AUTOINCREMENT,
  at  INTEGER NOT NULL,
  doc TEXT NOT NULL
) STRICT;
