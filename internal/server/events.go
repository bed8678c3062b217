package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"banger/internal/api"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/vm"
)

// Events are the news of what has changed. *store.Store has them.
type Events interface {
	// Events returns those after an id, at most limit; a gap first where not all are kept.
	Events(ctx context.Context, after int64, limit int) (event.Page, error)
	// LastEvent is the id of the newest.
	LastEvent(ctx context.Context) (int64, error)
	// EventBefore is the id after which those come that happened since a time.
	EventBefore(ctx context.Context, since time.Time) (int64, error)
	// Changed is closed when there may be more.
	Changed() <-chan struct{}
}

const (
	eventBatch = 500
	// heartbeat is how often a silent stream says how far it has come: so a client that was told nothing for
	// long is not sent to a gap when it comes back, and one that has gone is noticed.
	heartbeat = 15 * time.Second
)

// changes sends what has changed as server-sent events, from where the client wants, until it goes or the
// server ends. It holds nothing between two reads: a slow reader delays nobody.
func (s *server) changes(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	after, err := s.begin(ctx, r)
	if err != nil {
		refuse(w, err)
		return
	}
	about, err := s.about(ctx, r.URL.Query().Get("vm"))
	if err != nil {
		refuse(w, err)
		return
	}
	out := &changeWriter{w: w}
	follow := r.URL.Query().Get("follow") != "false"
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		changed := s.Events.Changed() // before reading: what is committed meanwhile is not slept through
		page, err := s.Events.Events(ctx, after, eventBatch)
		if err != nil {
			s.breakOff(ctx, out, err)
			return
		}
		for _, e := range page.Events {
			if e.SeenBy(callerOf(ctx)) && (about == "" || about == e.VM || e.Kind == event.Gap) {
				out.event(e)
			}
		}
		if after = page.Next; !out.begun {
			out.position(after) // the client learns that it is being told, and from where
		}
		if err := out.flush(); err != nil {
			return
		}
		if page.More {
			continue
		}
		if !follow {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
			out.position(after)
			if err := out.flush(); err != nil {
				return
			}
		case <-s.closing:
			follow = false // the last word is told
		case <-ctx.Done():
			return
		}
	}
}

// begin finds the id after which to tell: the one that a client which comes back has seen, or an id or a time
// span that it asks for, or the newest.
func (s *server) begin(ctx context.Context, r *http.Request) (int64, error) {
	since := r.Header.Get("Last-Event-ID")
	if since == "" {
		since = r.URL.Query().Get("since")
	}
	if since == "" {
		return s.Events.LastEvent(ctx)
	}
	if id, err := strconv.ParseInt(since, 10, 64); err == nil && id >= 0 {
		return id, nil
	}
	ago, err := time.ParseDuration(since)
	if err != nil || ago < 0 {
		return 0, fault.New(fault.Invalid, "it is neither an event's id nor a time span").WithOp("tell events since", since).
			WithHint("write an id such as 42, 0 for all that are kept, or a time such as 10m")
	}
	return s.Events.EventBefore(ctx, time.Now().Add(-ago))
}

// about finds the VM of the caller's whose events are wanted; empty for all. One that is no more is known by what
// is told of it still.
func (s *server) about(ctx context.Context, selector string) (vm.ID, error) {
	if selector == "" {
		return "", nil
	}
	caller := callerOf(ctx)
	v, missing := s.Verbs.Find(ctx, caller, selector)
	if missing == nil {
		return v.ID, nil
	}
	if !fault.Is(missing, fault.NotFound) {
		return "", missing
	}
	var id vm.ID
	for after, more := int64(0), true; more; {
		page, err := s.Events.Events(ctx, after, eventBatch)
		if err != nil {
			return "", err
		}
		for _, e := range page.Events {
			if e.VM != "" && e.SeenBy(caller) && (e.Name == selector || string(e.VM) == selector) {
				id = e.VM
			}
		}
		after, more = page.Next, page.More
	}
	if id == "" {
		return "", missing
	}
	return id, nil
}

// breakOff ends a stream so that the client does not take it for whole, and comes back for the rest.
func (s *server) breakOff(ctx context.Context, out *changeWriter, err error) {
	switch {
	case ctx.Err() != nil: // it was the client who ended it
	case !out.begun:
		refuse(out.w, err)
	default:
		s.Log.Error("read events", "error", err)
		panic(http.ErrAbortHandler)
	}
}

// changeWriter writes events. After an error it writes nothing more.
type changeWriter struct {
	w     http.ResponseWriter
	begun bool
	err   error
}

func (c *changeWriter) event(e event.Event) {
	c.print("id: %d\nevent: %s\ndata: %s\n", e.ID, api.EventChange, encode(e))
}

// position tells how far the stream has come. It is an event without data, which only sets the id that a client
// comes back with.
func (c *changeWriter) position(id int64) { c.print("id: %d\n\n", id) }

func (c *changeWriter) print(format string, args ...any) {
	if !c.begun {
		c.w.Header().Set("Content-Type", "text/event-stream")
		c.w.Header().Set("Cache-Control", "no-store")
		c.begun = true
	}
	if c.err == nil {
		_, c.err = fmt.Fprintf(c.w, format, args...)
	}
}

func (c *changeWriter) flush() error {
	if c.err == nil {
		c.err = http.NewResponseController(c.w).Flush()
	}
	return c.err
}
