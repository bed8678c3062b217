package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
)

// follower reads a log that grows and is now and then replaced by a new one.
type follower struct {
	path  string
	f     *os.File // nil until there is one
	w     http.ResponseWriter
	flush func() error
}

func (l *follower) close() {
	if l.f != nil {
		_ = l.f.Close()
	}
}

// tail sends the last lines, all when lines is zero, at most maxTail bytes of them.
func (l *follower) tail(lines int) error {
	if l.f == nil {
		return l.flush()
	}
	end, err := l.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	from := max(0, end-maxTail)
	text := make([]byte, end-from)
	n, err := l.f.ReadAt(text, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	text = text[:n]
	if lines > 0 {
		text = lastLines(text, lines)
	}
	if _, err := l.w.Write(text); err != nil {
		return err
	}
	return l.flush()
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

// more sends what was added, and goes on with the new log when the old one was put aside.
func (l *follower) more() error {
	if l.f != nil {
		if _, err := io.Copy(l.w, l.f); err != nil {
			return err
		}
	}
	now, err := os.Stat(l.path)
	if err == nil {
		var held os.FileInfo
		if l.f != nil {
			held, err = l.f.Stat()
		}
		if err == nil && (held == nil || !os.SameFile(held, now)) {
			fresh, err := os.Open(l.path)
			if err == nil {
				l.close()
				l.f = fresh
			}
		}
	}
	return l.flush()
}
