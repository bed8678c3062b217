-- +goose Up
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE vms (
  id      TEXT PRIMARY KEY,
  name    TEXT NOT NULL UNIQUE,
  owner   INTEGER NOT NULL,
  state   TEXT NOT NULL,
  address TEXT UNIQUE,
  doc     TEXT NOT NULL
) STRICT;

-- A record is a host resource that one VM may hold: written before the resource is made.
CREATE TABLE records (
  vm    TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
  kind  TEXT NOT NULL,
  name  TEXT NOT NULL,
  until TEXT NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT;
CREATE INDEX records_vm ON records (vm);

CREATE TABLE operations (
  id      TEXT PRIMARY KEY,
  owner   INTEGER NOT NULL,
  state   TEXT NOT NULL,
  created INTEGER NOT NULL,
  doc     TEXT NOT NULL
) STRICT;
CREATE INDEX operations_created ON operations (created);
