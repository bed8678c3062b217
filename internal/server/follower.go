package server

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"banger/internal/logtime"
)

// follower reads a log that grows and is now and then put aside for a new one, as path + ".1".
type follower struct {
	path  string
	since time.Time // of a raw log only what was written since
	f     *os.File  // nil until there is one
	w     io.Writer
	flush func() error
}

// open opens the log. That there is none yet is no error.
func (l *follower) open() error {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l.f = f
	return err
}

func (l *follower) close() {
	if l.f != nil {
		_ = l.f.Close()
	}
}

// tail sends the last lines, all when lines is zero, at most maxTail bytes of them. only leaves out those that are not
// wanted, and counts them not.
func (l *follower) tail(lines int, only func([]byte) []byte) error {
	var text []byte
	if l.f != nil {
		end, err := l.f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		if text, err = l.last(l.f, l.path, end, maxTail); err != nil {
			return err
		}
	}
	if room := maxTail - int64(len(text)); room > 0 && (lines <= 0 || bytes.Count(only(text), []byte("\n")) < lines) {
		older, err := l.older(room)
		if err != nil {
			return err
		}
		text = append(older, text...)
	}
	text = only(text)
	if lines > 0 {
		text = lastLines(text, lines)
	}
	if _, err := l.w.Write(text); err != nil {
		return err
	}
	return l.flush()
}

// older reads the end of what was put aside.
func (l *follower) older(room int64) ([]byte, error) {
	f, err := os.Open(l.path + ".1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if l.holds(info) { // put aside since it was opened, and read already
		return nil, nil
	}
	return l.last(f, l.path+".1", info.Size(), room)
}

// last reads the end of one of the log's files, of what was written to it since the time that is wanted.
func (l *follower) last(f *os.File, path string, end, most int64) ([]byte, error) {
	from := int64(0)
	if !l.since.IsZero() {
		var err error
		if from, err = logtime.Offset(path, end, l.since); err != nil {
			return nil, err
		}
	}
	return lastBytes(f, end, min(most, end-from))
}

func (l *follower) holds(info os.FileInfo) bool {
	if l.f == nil {
		return false
	}
	held, err := l.f.Stat()
	return err == nil && os.SameFile(held, info)
}

func lastBytes(f *os.File, end, most int64) ([]byte, error) {
	from := max(0, end-most)
	text := make([]byte, end-from)
	n, err := f.ReadAt(text, from)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return text[:n], err
}

func lastLines(text []byte, lines int) []byte {
	at := len(bytes.TrimSuffix(text, []byte("\n")))
	for range lines {
		at = bytes.LastIndexByte(text[:at], '\n')
		if at < 0 {
			return text
		}
	}
	return text[at+1:]
}

// more sends what was added, and goes on with the new log when the old one was put aside. It fails with
// fs.ErrNotExist while there is no log.
func (l *follower) more() error {
	if err := l.rest(); err != nil {
		return err
	}
	now, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	if l.holds(now) {
		return nil
	}
	fresh, err := os.Open(l.path)
	if err != nil {
		return err
	}
	// The new log being there, nothing will be added to the old one.
	err = l.rest()
	l.close()
	l.f = fresh
	return errors.Join(err, l.rest())
}

// rest sends what has not been read yet.
func (l *follower) rest() error {
	if l.f == nil {
		return nil
	}
	n, err := io.Copy(l.w, l.f)
	if err != nil || n == 0 {
		return err
	}
	return l.flush()
}
