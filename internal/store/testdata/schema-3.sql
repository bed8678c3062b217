-- A database as this schema left it. Every later build must be able to open it, so once released this file never changes.
PRAGMA journal_mode = WAL;
CREATE TABLE goose_db_version (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  version_id INTEGER NOT NULL,
  is_applied INTEGER NOT NULL,
  tstamp     TIMESTAMP DEFAULT (datetime('now'))
);
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
CREATE TABLE events (
  id  INTEGER PRIMARY KEY AUTOINCREMENT,
  at  INTEGER NOT NULL,
  doc TEXT NOT NULL
) STRICT;
CREATE TABLE released (
  address TEXT PRIMARY KEY,
  at      INTEGER NOT NULL
) STRICT;
INSERT INTO goose_db_version VALUES (1, 0, 1, '2026-01-02 03:04:05');
INSERT INTO goose_db_version VALUES (2, 1, 1, '2026-01-02 03:04:05');
INSERT INTO goose_db_version VALUES (3, 2, 1, '2026-11-23 18:54:04');
INSERT INTO goose_db_version VALUES (4, 3, 1, '2026-11-29 09:13:58');
INSERT INTO meta VALUES ('tag', '1f2e');
INSERT INTO meta VALUES ('subnet', '10.223.0.0/22');
INSERT INTO vms VALUES ('0123456789ab', 'dev', 1000, 'running', '10.223.0.2', '{"id":"0123456789ab","name":"dev","owner":1000,"labels":{"project":"website"},"arch":"amd64","image":{"id":"fedcba987654","name":"debian:12"},"spec":{"vcpu":2,"memory":1073741824,"root_disk":2147483648,"work_disk":8589934592},"desired":"running","state":"running","lease":{"address":"10.223.0.2/22","gateway":"10.223.0.1","mac":"02:ba:0a:df:00:02","tap":"bt1f2e-01234567","bridge":"banger-1f2e","cid":3},"access":{"authorized_keys":["ssh-ed25519 AAAA user@host"],"host_key":"ssh-ed25519 BBBB","host_key_private":"PEM","machine_id":"00112233445566778899aabbccddeeff"},"process":{"pid":4242,"start_time":987654,"boot_id":"0f0e0d0c-0b0a-0908-0706-050403020100"},"created":"2026-01-02T03:04:05Z","started":"2026-01-02T03:04:09Z","changed":"2026-01-02T03:04:09Z"}');
INSERT INTO records VALUES ('0123456789ab', 'dir', '0123456789ab', 'delete');
INSERT INTO records VALUES ('0123456789ab', 'tap', 'bt1f2e-01234567', 'stop');
INSERT INTO operations VALUES ('op-0123456789', 1000, 'done', 1767323045000000000, '{"id":"op-0123456789","kind":"vm.create","subject":"0123456789ab","name":"dev","owner":1000,"state":"done","stages":[{"name":"boot","started":"2026-01-02T03:04:05Z","duration":4000000000,"done":true}],"created":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:04:09Z"}');
