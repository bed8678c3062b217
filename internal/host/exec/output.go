package exec

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"banger/internal/host/plain"
)

// tailWriter keeps the newest bytes written to it, at most max.
type tailWriter struct {
	max int
	buf []byte
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if len(w.buf) > 2*w.max { // trimmed rarely, so that a long output costs no quadratic copying
		w.buf = append(w.buf[:0], w.bytes()...)
	}
	return len(p), nil
}

func (w *tailWriter) bytes() []byte {
	return w.buf[max(0, len(w.buf)-w.max):]
}

// lineWriter hands lines of several streams to one function, one call at a time.
type lineWriter struct {
	mu      sync.Mutex
	emit    func(string)
	streams []*lineStream
}

type lineStream struct {
	to  *lineWriter
	buf []byte
}

func (w *lineWriter) stream() io.Writer {
	s := &lineStream{to: w}
	w.streams = append(w.streams, s)
	return s
}

// Write splits at line feeds and at carriage returns, which programs use to redraw progress.
func (s *lineStream) Write(p []byte) (int, error) {
	if s.to.emit == nil {
		return len(p), nil
	}
	s.to.mu.Lock()
	defer s.to.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		part := p
		if i >= 0 {
			part = p[:i]
		}
		s.buf = append(s.buf, part[:min(len(part), maxLine-len(s.buf))]...)
		if i < 0 {
			break
		}
		s.end()
		p = p[i+1:]
	}
	return n, nil
}

func (s *lineStream) end() {
	if line := plain.Line(string(s.buf)); line != "" {
		s.to.emit(line)
	}
	s.buf = s.buf[:0]
}

// flush hands over what was written after the last line's end.
func (w *lineWriter) flush() {
	if w.emit == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.streams {
		s.end()
	}
}

func lastLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := len(lines) - 1; i >= 0; i-- {
		if line := plain.Line(lines[i]); line != "" {
			return line
		}
	}
	return ""
}
