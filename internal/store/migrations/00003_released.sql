-- +goose Up
-- Addresses that a VM had, and when it gave them up: they rest, so that what their neighbours remember of them is gone
-- before another VM has them.
CREATE TABLE released (
  address TEXT PRIMARY KEY,
  at      INTEGER NOT NULL
) STRICT;
