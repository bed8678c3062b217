package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/lab/hoststate"
)

// Where a VM called dev stands. A crashed one is a stopped one with a reason.
const (
	gone    = "absent"
	atRest  = "stopped"
	isUp    = "running"
	inTrash = "trashed"
)

// crashWalk kills a daemon that was built with the tag crashpoint at each point that a verb passes.
type crashWalk struct {
	*hosts
	ts   *testscript.TestScript
	dir  string                     // by which the daemon is told where to die
	refs map[string]hoststate.State // the host, by where dev stands
	done int                        // how many verbs
}

// crashPoints kills the daemon at each labelled point of each verb, and compares the host after its restart with how it was
// before in the same state:
//
//	crash-points LEAST FILE
//
// Each line of FILE is a verb, "STATE COMMAND…", which is done to the VM dev in that state; or "except KIND", a kind of
// operation that is none of them. There must be at least so many points, and a verb for each other kind. {n} in a command is
// a number that grows with each verb that is done, from 130 on, so that there is something to do each time.
func (h *hosts) crashPoints(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: crash-points LEAST FILE")
	}
	least, err := strconv.Atoi(args[0])
	ts.Check(err)
	w := &crashWalk{hosts: h, ts: ts, dir: ts.Getenv("BANGER_CRASHPOINTS"), refs: map[string]hoststate.State{}}
	var except []string
	points, begun := 0, time.Now()
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "except":
			except = append(except, words[1:]...)
		default:
			points += w.verb(words[0], words[1:])
		}
	}
	w.arrange(gone)
	ts.Logf("%d points in %s", points, time.Since(begun).Round(time.Second))
	if points < least {
		ts.Fatalf("%d points, want at least %d", points, least)
	}
	w.banger("op", "list", "--format", "{{.kind}}")
	done := strings.Fields(ts.ReadFile("stdout"))
	for _, kind := range strings.Fields(w.read("kinds")) {
		if !slices.Contains(done, kind) && !slices.Contains(except, kind) {
			ts.Fatalf("no verb is a %s", kind)
		}
	}
}

// verb does a verb once to learn its points, and then once for each, to die there.
func (w *crashWalk) verb(from string, command []string) int {
	w.arrange(from)
	w.forget("passed")
	w.ts.Check(w.do(command))
	w.settle()
	points := distinct(w.read("passed"))
	for _, point := range points {
		w.arrange(from)
		w.forget("passed")
		w.ts.Check(os.WriteFile(filepath.Join(w.dir, "kill"), []byte(point+"\n"), 0o600))
		_ = w.do(command) // the daemon dies under it, or right after it
		if err := until(w.ctx, waitEnd, func() bool { return w.has("killed") }); err != nil {
			w.ts.Fatalf("%s: %q was not come to: %v", strings.Join(command, " "), point, err)
		}
		w.forget("killed")
		w.settle()
		w.judge(strings.Join(command, " ") + ": " + point)
	}
	w.ts.Logf("%s: %d points", strings.Join(command, " "), len(points))
	return len(points)
}

func (w *crashWalk) do(command []string) error {
	w.done++
	n := strconv.Itoa(130 + w.done)
	var args []string
	for _, word := range command[1:] {
		args = append(args, strings.ReplaceAll(word, "{n}", n))
	}
	return w.ts.Exec(command[0], args...)
}

// distinct numbers the points that were passed, each among its equals.
func distinct(passed string) []string {
	count := map[string]int{}
	var out []string
	for line := range strings.Lines(passed) {
		line = strings.TrimSpace(line)
		count[line]++
		out = append(out, fmt.Sprintf("%s %d", line, count[line]))
	}
	return out
}

// judge demands that dev stands somewhere, and that the host is as it is whenever dev stands there.
func (w *crashWalk) judge(what string) {
	state := w.state()
	if state == isUp {
		w.banger("vm", "ping", "dev")
	}
	want, ok := w.refs[state]
	if !ok {
		return // it is compared once it is gone
	}
	var diff []string
	if err := until(w.ctx, waitEnd, func() bool { diff = hoststate.Diff(want, w.anonymous()); return len(diff) == 0 }); err != nil {
		w.ts.Fatalf("after %s dev is %s, and the host is not as it was:\n%s", what, state, strings.Join(diff, "\n"))
	}
}

// state tells where dev stands. What is none of the known ones is a failure.
func (w *crashWalk) state() string {
	w.banger("vm", "list", "--format", "{{.state}}")
	switch s := strings.TrimSpace(w.ts.ReadFile("stdout")); s {
	case "":
	case "crashed":
		return atRest
	case atRest, isUp:
		return s
	default:
		w.ts.Fatalf("dev is %q", s)
	}
	w.banger("vm", "trash", "list", "-o", "name")
	if w.ts.ReadFile("stdout") != "" {
		return inTrash
	}
	return gone
}

// arrange brings dev to a state, and sees that the host is then as ever.
func (w *crashWalk) arrange(to string) {
	for range 4 {
		state := w.state()
		if state == to {
			break
		}
		switch {
		case state == gone:
			w.banger("vm", "create", "dev", "--image", "tiny", "--memory", "512M", "--work-disk", "64M")
		case to == gone && state == inTrash:
			w.banger("vm", "trash", "empty", "--yes")
		case to == gone:
			w.banger("vm", "delete", "--yes", "--force", "--now", "dev")
		case state == inTrash:
			w.banger("vm", "trash", "restore", "dev")
		case to == isUp:
			w.banger("vm", "start", "dev")
		case state == isUp:
			w.banger("vm", "kill", "dev")
		default:
			w.banger("vm", "delete", "--yes", "dev")
		}
	}
	if _, ok := w.refs[to]; !ok {
		w.settle()
		w.refs[to] = w.anonymous()
	}
	w.judge("arranging")
}

// settle has a daemon answer, and waits until it does nothing.
func (w *crashWalk) settle() {
	err := until(w.ctx, waitDefault, func() bool {
		w.banger("status", "--format", "{{range .operations}}{{.id}} {{end}}")
		return strings.TrimSpace(w.ts.ReadFile("stdout")) == ""
	})
	if err != nil {
		w.ts.Fatalf("the daemon does not come to rest: %v", err)
	}
}

// anonymous is the host's state without the VM's id: dev is made anew now and then.
func (w *crashWalk) anonymous() hoststate.State {
	s := w.now(w.ts)
	for _, line := range s {
		if m := vmDir.FindStringSubmatch(line); m != nil {
			for i := range s {
				s[i] = strings.ReplaceAll(strings.ReplaceAll(s[i], m[1], "ID"), m[1][:8], "ID")
			}
		}
	}
	slices.Sort(s)
	return s
}

var vmDir = regexp.MustCompile(`/vms/([0-9a-f]{12})`)

func (w *crashWalk) banger(args ...string) {
	w.ts.Check(w.ts.Exec("banger", args...))
}

func (w *crashWalk) read(name string) string {
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	w.ts.Check(err)
	return string(text)
}

func (w *crashWalk) has(name string) bool {
	_, err := os.Stat(filepath.Join(w.dir, name))
	return err == nil
}

func (w *crashWalk) forget(name string) {
	if w.has(name) {
		w.ts.Check(os.Remove(filepath.Join(w.dir, name)))
	}
}
