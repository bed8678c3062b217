package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"banger/internal/fault"
	"banger/internal/op"
	"banger/internal/vm"
)

// Bounds of reading a log.
const (
	maxTail    = 4 << 20 // bytes
	maxRecord  = 1 << 20 // of a line of the daemon's log
	followStep = 200 * time.Millisecond
)

// logs sends a VM's raw log, or what the daemon logged about the VM. The text is escaped by whoever shows it.
func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	source, err := s.logSource(r)
	if err != nil {
		refuse(w, err)
		return
	}
	q := r.URL.Query()
	lines, _ := strconv.Atoi(q.Get("tail")) // absent is all
	since, err := logSince(q.Get("since"))
	if err != nil {
		refuse(w, err)
		return
	}
	l := &follower{path: source.path, w: w, flush: http.NewResponseController(w).Flush}
	only := func(text []byte) []byte { return text }
	if source.records != nil {
		records := *source.records
		records.since = since
		only = records.filter
		l.w = &sieve{w: w, wanted: records.wanted}
	} else {
		l.since = since
	}
	if err := l.open(); err != nil {
		refuse(w, fault.System(err, "read log", source.path))
		return
	}
	defer l.close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := l.tail(lines, only); err != nil || q.Get("follow") != "true" {
		return
	}
	tick := time.NewTicker(followStep)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		err := l.more()
		if errors.Is(err, fs.ErrNotExist) { // not begun yet, or deleted with its VM
			_, err = s.logSource(r)
		}
		if err != nil {
			return
		}
	}
}

// logSource is a file, and of the daemon's log which of its lines.
type logSource struct {
	path    string
	records *records
}

func (s *server) logSource(r *http.Request) (logSource, error) {
	v, err := s.Verbs.Find(r.Context(), callerOf(r.Context()), r.PathValue("vm"))
	if err != nil {
		return logSource{}, err
	}
	switch source := r.URL.Query().Get("source"); source {
	case "", "console":
		return logSource{path: s.Layout.ConsoleLog(v.ID)}, nil
	case "firecracker":
		return logSource{path: s.Layout.FirecrackerLog(v.ID)}, nil
	case "network":
		return logSource{s.Layout.NetworkLog(v.ID), &records{whole: true}}, nil
	case "daemon":
		return logSource{s.Layout.DaemonLog(), &records{about: v.ID}}, nil
	case "operation":
		return logSource{s.Layout.DaemonLog(), &records{about: v.ID, operations: true}}, nil
	default:
		return logSource{}, fault.New(fault.Invalid, "there is no such log").WithOp("read log", source).
			WithHint("choose console, firecracker, network, daemon or operation")
	}
}

// logSince reads a time span before now, or a point in time; the zero time for neither.
func logSince(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "it is neither a time span nor a point in time").WithOp("read log since", text).
			WithHint("write a time such as 10m, or 2026-01-02T15:04:05Z")
	}
	return at, nil
}

// records are lines of JSON that tell their time: of the daemon's log those about one VM, whose owner may read them, since
// all that they say is his; or all, of a log that is the VM's own.
type records struct {
	whole      bool
	about      vm.ID
	operations bool // only what its operations did
	since      time.Time
}

func (r records) wanted(line []byte) bool {
	var l struct {
		Time      time.Time `json:"time"`
		ID        vm.ID     `json:"id"`
		Operation op.ID     `json:"operation"`
	}
	if !r.whole && !bytes.Contains(line, []byte(r.about)) || json.Unmarshal(line, &l) != nil {
		return false
	}
	return (r.whole || l.ID == r.about) && (!r.operations || l.Operation != "") && !l.Time.Before(r.since)
}

// filter keeps the lines that are wanted. One that has not ended yet may become one.
func (r records) filter(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		if r.wanted(line) || line[len(line)-1] != '\n' {
			out = append(out, line...)
		}
	}
	return out
}

// sieve passes on whole lines that are wanted.
type sieve struct {
	w      io.Writer
	wanted func(line []byte) bool
	part   []byte // of a line that has not ended
}

// Write implements io.Writer.
func (s *sieve) Write(p []byte) (int, error) {
	s.part = append(s.part, p...)
	for {
		i := bytes.IndexByte(s.part, '\n')
		if i < 0 {
			break
		}
		if line := s.part[:i+1]; s.wanted(line) {
			if _, err := s.w.Write(line); err != nil {
				return 0, err
			}
		}
		s.part = s.part[i+1:]
	}
	if len(s.part) > maxRecord {
		s.part = nil
	}
	return len(p), nil
}
