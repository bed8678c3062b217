// Package logtime notes beside a raw log when it grew, so that what was written since a time can be found: what a guest
// writes to its console carries no time that could be trusted.
//
// The notes are lines of a time, in seconds since 1970, and the offset in the log from which on it was written then.
package logtime

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Suffix is that of the notes about a log.
const Suffix = ".times"

const (
	// Precision is how exactly a time is known: no two notes lie closer together.
	Precision = time.Second
	// maxNotes bounds the notes about one log, in bytes: thousands of them. What comes later belongs to the last one.
	maxNotes = 128 << 10
)

// Notes takes notes about one log. Its zero value has none yet.
type Notes struct{ last time.Time }

// Grows notes that the log grows now, at this offset, unless the last note will do.
func (n *Notes) Grows(log string, offset int64) error {
	now := time.Now()
	if now.Sub(n.last) < Precision {
		return nil
	}
	n.last = now
	f, err := os.OpenFile(log+Suffix, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < maxNotes {
		_, err = fmt.Fprintf(f, "%d %d\n", now.Unix(), offset)
	}
	return errors.Join(err, f.Close())
}

// PutAside goes with a log that is put aside under another name.
func (n *Notes) PutAside(log, to string) error {
	n.last = time.Time{}
	err := os.Rename(log+Suffix, to+Suffix)
	if errors.Is(err, fs.ErrNotExist) { // it never grew under our eyes: the notes about what was there before go too
		err = os.Remove(to + Suffix)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Offset is where in a log of this size that begins which was written since a time. Without notes nothing is known, and
// it is the beginning.
func Offset(log string, size int64, since time.Time) (int64, error) {
	f, err := os.Open(log + Suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	since = since.Add(-Precision)
	last, read := int64(0), 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var at, offset int64
		if _, err := fmt.Sscanf(sc.Text(), "%d %d", &at, &offset); err != nil || offset < last {
			continue // half a line, from when the host lost power
		}
		if !time.Unix(at, 0).Before(since) {
			return min(offset, size), nil
		}
		last, read = offset, read+len(sc.Bytes())+1
	}
	if read < maxNotes-64 {
		return size, nil
	}
	return min(last, size), nil
}
