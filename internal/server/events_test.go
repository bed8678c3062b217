package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger/internal/client"
	"banger/internal/event"
	"banger/internal/fault"
	"banger/internal/store"
	"banger/internal/vm"
)

// eventful is a world with a real store.
func eventful(t *testing.T) (*world, *store.Store) {
	t.Helper()
	w := draft(t)
	s, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w.events = s
	return w, s
}

func note(t *testing.T, s *store.Store, news ...event.Event) {
	t.Helper()
	if err := s.Note(t.Context(), news...); err != nil {
		t.Fatal(err)
	}
}

// of is an event about a VM of this test's user, or of another.
func of(v vm.VM, owner int) event.Event {
	v.Owner, v.State = owner, vm.Creating
	return event.OfArrival(v)
}

func other() vm.VM { return vm.VM{ID: "77ab01cd23ef", Name: "other"} }

// listen follows events in the background.
func listen(t *testing.T, c *client.Client, q client.EventQuery) (next func() string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	lines, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		ended <- c.Events(ctx, q, func(e event.Event) error {
			lines <- line(e)
			return nil
		})
	}()
	next = func() string {
		t.Helper()
		select {
		case l := <-lines:
			return l
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told")
			return ""
		}
	}
	stop = func() error { cancel(); return <-ended }
	t.Cleanup(func() { cancel() })
	return next, stop
}

func line(e event.Event) string { return fmt.Sprintf("%d %s %s", e.ID, e.Kind, e.Name) }

// kept returns what has happened already.
func (w *world) kept(q client.EventQuery) (lines []string, err error) {
	q.Kept = true
	err = w.client.Events(w.t.Context(), q, func(e event.Event) error {
		lines = append(lines, line(e))
		return nil
	})
	return lines, err
}

func started() event.Event { return event.OfDaemon(event.DaemonStarted, "") }

func TestEventsSince(t *testing.T) {
	w, s := eventful(t)
	w.serve()
	note(t, s, started(), of(machine(), os.Getuid()), of(other(), os.Getuid()))
	for _, c := range []struct {
		q    client.EventQuery
		want []string
	}{
		{client.EventQuery{}, nil},
		{client.EventQuery{Since: "0"}, []string{"1 daemon.started ", "2 vm.created dev", "3 vm.created other"}},
		{client.EventQuery{Since: "2"}, []string{"3 vm.created other"}},
		{client.EventQuery{Since: "1h"}, []string{"1 daemon.started ", "2 vm.created dev", "3 vm.created other"}},
		{client.EventQuery{Since: "0s"}, nil},
		{client.EventQuery{Since: "70"}, []string{"0 gap ", "1 daemon.started ", "2 vm.created dev", "3 vm.created other"}},
		{client.EventQuery{Since: "0", VM: "dev"}, []string{"2 vm.created dev"}},
		{client.EventQuery{Since: "0", VM: "1f0c"}, []string{"2 vm.created dev"}},
		{client.EventQuery{Since: "0", VM: "other"}, []string{"3 vm.created other"}}, // which is no more
		{client.EventQuery{Since: "70", VM: "77ab01cd23ef"}, []string{"0 gap ", "3 vm.created other"}},
	} {
		got, err := w.kept(c.q)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%+v: %v\n%s", c.q, err, d)
		}
	}
	for _, c := range []struct {
		q    client.EventQuery
		code fault.Code
		want string
	}{
		{client.EventQuery{Since: "yesterday"}, fault.Invalid, `tell events since "yesterday": it is neither an event's id nor a time span`},
		{client.EventQuery{Since: "-1"}, fault.Invalid, `tell events since "-1": it is neither an event's id nor a time span`},
		{client.EventQuery{VM: "nobody"}, fault.NotFound, `find VM "nobody": no VM has this name or id`},
	} {
		if _, err := w.kept(c.q); !fault.Is(err, c.code) || err.Error() != c.want || fault.From(err).Hint == "" {
			t.Errorf("%+v: %v", c.q, err)
		}
	}
}

// TestEventsOfOthersAreNotSeen asks as two users, over connections of their own.
func TestEventsOfOthersAreNotSeen(t *testing.T) {
	w, s := eventful(t)
	w.serve()
	const alice, bob = 1000, 1001
	theirs := of(other(), bob)
	note(t, s, started(), of(machine(), alice), theirs)
	ask := func(uid int, query string) string {
		conn := w.connectAs(uid)
		if _, err := io.WriteString(conn, "GET /v1/events?follow=false&"+query+" HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return drainText(t, conn)
	}
	for _, c := range []struct {
		uid        int
		sees, lack []string
	}{
		{0, []string{"daemon.started", `"dev"`, `"other"`}, nil},
		{alice, []string{"daemon.started", `"dev"`}, []string{`"other"`}},
		{bob, []string{"daemon.started", `"other"`}, []string{`"dev"`}},
	} {
		got := ask(c.uid, "since=0")
		for _, want := range c.sees {
			if !strings.Contains(got, want) {
				t.Errorf("%d does not see %s: %s", c.uid, want, got)
			}
		}
		for _, hidden := range c.lack {
			if strings.Contains(got, hidden) {
				t.Errorf("%d sees %s: %s", c.uid, hidden, got)
			}
		}
	}
	if got := ask(alice, "since=0&vm=other"); !strings.Contains(got, "404") {
		t.Errorf("alice is told that there was another's VM: %s", got)
	}
}

// TestEventsAreFollowedOverARestart holds that each is told once, in order, while servers come and go.
func TestEventsAreFollowedOverARestart(t *testing.T) {
	w, s := eventful(t)
	stop := w.serve()
	absent := make(chan struct{}, 100)
	next, end := listen(t, w.client, client.EventQuery{Since: "0", Absent: func() { absent <- struct{}{} }})
	var want []string
	for i := range 5 {
		note(t, s, of(machine(), os.Getuid()))
		want = append(want, fmt.Sprintf("%d vm.created dev", 2*i+1), fmt.Sprintf("%d vm.created dev", 2*i+2))
		if got := next(); got != want[2*i] {
			t.Fatalf("got %q, want %q", got, want[2*i])
		}
		stop()
		<-absent
		note(t, s, of(machine(), os.Getuid()))
		_ = os.Remove(w.socket)
		stop = w.serve()
		if got := next(); got != want[2*i+1] {
			t.Fatalf("got %q, want %q", got, want[2*i+1])
		}
	}
	if err := end(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// watched tells each time that it is read.
type watched struct {
	*store.Store
	reads chan struct{}
}

func (e watched) Events(ctx context.Context, after int64, limit int) (event.Page, error) {
	e.reads <- struct{}{}
	return e.Store.Events(ctx, after, limit)
}

// TestNothingIsMissedBeforeTheFirstEvent is a client that has been told nothing when its server goes.
func TestNothingIsMissedBeforeTheFirstEvent(t *testing.T) {
	w, s := eventful(t)
	note(t, s, started())
	reads := make(chan struct{}, 100)
	w.events = watched{s, reads}
	stop := w.serve()
	absent := make(chan struct{}, 100)
	next, _ := listen(t, w.client, client.EventQuery{VM: "dev", Absent: func() { absent <- struct{}{} }})
	<-reads
	note(t, s, of(other(), os.Getuid()))
	<-reads // so what followed the first has been sent
	stop()
	<-absent
	note(t, s, of(machine(), os.Getuid()))
	_ = os.Remove(w.socket)
	w.serve()
	if got := next(); got != "3 vm.created dev" {
		t.Errorf("got %q", got)
	}
}

// TestShutdownEndsFollowers: they are told the last word, and do not hold the daemon's end up.
func TestShutdownEndsFollowers(t *testing.T) {
	w, s := eventful(t)
	srv, _ := w.start()
	conn := w.raw("GET /v1/events?since=0 HTTP/1.0\r\n\r\n")
	note(t, s, started())
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	note(t, s, event.OfDaemon(event.DaemonEnded, "it was told to"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if text := drainText(t, conn); !strings.Contains(text, `"daemon.ended"`) {
		t.Errorf("told %s", text)
	}
}

// TestASlowReaderDelaysNobody leaves a stream unread that has more to say than any buffer holds.
func TestASlowReaderDelaysNobody(t *testing.T) {
	w, s := eventful(t)
	w.serve()
	w.raw("GET /v1/events?since=0 HTTP/1.1\r\nHost: banger\r\n\r\n")
	loud := event.OfDaemon(event.DaemonStarted, strings.Repeat("x", 1<<16))
	for range 10 {
		note(t, s, loud, loud, loud, loud, loud, loud, loud, loud, loud, loud)
	}
	if got, err := w.kept(client.EventQuery{Since: "99"}); err != nil || len(got) != 1 {
		t.Errorf("another reader: %q, %v", got, err)
	}
}

// TestABrokenStoreIsNotTheEnd: the client comes back for what could not be read.
func TestABrokenStoreIsNotTheEnd(t *testing.T) {
	w := newWorld(t)
	w.verbs.fail(fault.New(fault.Corrupt, "it is damaged").WithHint("restore it"))
	if _, err := w.kept(client.EventQuery{Since: "0"}); !fault.Is(err, fault.Corrupt) {
		t.Errorf("got %v", err)
	}
}
