package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"banger/internal/api"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/op"
)

// maxEvent bounds one event: an operation with all its stages is a few hundred KiB.
const maxEvent = 4 << 20

// Bounds of waiting for a daemon that executes itself anew.
const (
	followRetries  = 50
	followInterval = 200 * time.Millisecond
)

// Follow calls each with the operation as it is and after changes, and returns it once it has ended. A
// daemon that executes itself anew meanwhile is waited for, and one that is gone revived.
func (c *Client) Follow(ctx context.Context, id op.ID, each func(op.Operation)) (op.Operation, error) {
	var last op.Operation
	for try := 0; ; try++ {
		err := c.follow(ctx, id, func(o op.Operation) {
			try, last = 0, o
			each(o)
		})
		if err == nil && last.State.Ended() {
			return last, nil
		}
		if !away(err) || try == followRetries {
			return last, err
		}
		next := pause
		if c.Revive != nil && Absent(err) {
			next = c.Revive
		}
		if err := next(ctx); err != nil {
			return last, err
		}
	}
}

// follow reads one stream of an operation's events to its end.
func (c *Client) follow(ctx context.Context, id op.ID, each func(op.Operation)) error {
	req, err := newRequest(ctx, http.MethodGet, below("operations", string(id), "/events"), nil)
	if err != nil {
		return err
	}
	err = c.stream(ctx, req, func(m message) error {
		if m.kind != api.EventOperation {
			return nil
		}
		var o op.Operation
		if err := json.Unmarshal(m.data, &o); err != nil {
			return strange(err).WithOp("follow operation", string(id))
		}
		each(o)
		if o.State.Ended() {
			return errEnough
		}
		return nil
	})
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Op == "" {
		return f.WithOp("follow operation", string(id)).WithHint("see how it ended: `banger op show %s`", id)
	}
	return err
}

// EventQuery chooses which events are told.
type EventQuery struct {
	Since  string // an event's id or a time span such as 10m; from now on when empty
	VM     string // only about this VM: a name, an id or a prefix of one
	Kept   bool   // only what has happened already
	Absent func() // called when the daemon has gone and is waited for; may be nil
}

// Events calls each with events as they happen, oldest first, until ctx is done or each fails. A daemon that
// has gone is waited for, and its successor asked for what happened since.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(event.Event) error) error {
	last := "" // id of what was told last
	for {
		err := c.events(ctx, q, &last, each)
		if last == "" || !away(err) {
			return err
		}
		if q.Absent != nil {
			q.Absent()
		}
		for away(err) {
			if err := pause(ctx); err != nil {
				return err
			}
			_, err = c.Version(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// events reads one stream to its end, and notes each id that it has come to.
func (c *Client) events(ctx context.Context, q EventQuery, last *string, each func(event.Event) error) error {
	v := url.Values{"follow": {strconv.FormatBool(!q.Kept)}}
	if q.Since != "" {
		v.Set("since", q.Since)
	}
	if q.VM != "" {
		v.Set("vm", q.VM)
	}
	req, err := newRequest(ctx, http.MethodGet, "/v1/events?"+v.Encode(), nil)
	if err != nil {
		return err
	}
	if *last != "" {
		req.Header.Set("Last-Event-ID", *last)
	}
	err = c.stream(ctx, req, func(m message) error {
		if m.kind == api.EventChange {
			var e event.Event
			if err := json.Unmarshal(m.data, &e); err != nil {
				return strange(err).WithOp("follow events", "")
			}
			if err := each(e); err != nil {
				return err
			}
		}
		if m.id != "" {
			*last = m.id
		}
		return nil
	})
	if q.Kept && errors.Is(err, errOver) {
		return nil
	}
	return err
}

// errEnough ends a stream that has told what was wanted.
var errEnough = errors.New("enough")

// errOver says that the daemon ended a stream.
var errOver = errors.New("the stream is over")

// message is one server-sent event. One without data only says how far the stream has come.
type message struct {
	id, kind string
	data     []byte
}

// stream reads server-sent events until take fails or the stream ends. It returns nil only for errEnough.
func (c *Client) stream(ctx context.Context, req *http.Request, take func(message) error) error {
	res, err := c.send(ctx, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(nil, maxEvent)
	var m message
	for sc.Scan() {
		field, value, _ := bytes.Cut(sc.Bytes(), []byte(": "))
		switch string(field) {
		case "id":
			m.id = string(value)
		case "event":
			m.kind = string(value)
		case "data":
			m.data = bytes.Clone(value)
		case "":
			err := take(m)
			if errors.Is(err, errEnough) {
				return nil
			}
			if err != nil {
				return err
			}
			m = message{}
		}
	}
	if err := sc.Err(); err != nil {
		return c.explain(ctx, err)
	}
	return fault.New(fault.Unavailable, "the daemon ended while it was followed: %w", errOver)
}

// Absent reports whether an error says that no daemon is there.
func Absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// away reports whether the daemon does not answer, which may be for a moment only.
func away(err error) bool { return fault.Is(err, fault.Unavailable) }

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(followInterval):
		return nil
	}
}

func strange(err error) *fault.Error {
	return fault.New(fault.Incompatible, "the daemon tells of it in a way that this command does not understand: %w", err).
		WithHint("see whether banger and bangerd are of one version: `banger version`")
}
