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
	ts    *testscript.TestScript
	dir   string                     // by which the daemon is told where to die
	refs  map[string]hoststate.State // the host, by where dev stands
	done  int                        // how many verbs
	kinds map[string]bool            // of operations that there were
}

// crashVerb is a verb that is done to dev where it stands.
type crashVerb struct {
	from          string
	command       []string
	before, after []string // commands around it, each time; none where empty
	only          *regexp.Regexp
}

// crashPoints kills the daemon at each labelled point of each verb, and compares the host after its restart with how it was
// before in the same state:
//
//	crash-points LEAST FILE
//
// Each line of FILE is a verb, "STATE COMMAND…", which is done to the VM dev in that state; or "except KIND", a kind of
// operation that is none of them. There must be at least so many points, and a verb for each other kind. {n} in a command is
// a number that grows with each verb that is done, from 130 on, so that there is something to do each time. Before a verb's
// line there may be such as concern that verb alone:
//
//	only REGEXP       takes those of its points that match
//	before COMMAND…   what else is to be there, before each time
//	after COMMAND…    checks and removes what else is there, once the next daemon has come to rest
func (h *hosts) crashPoints(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: crash-points LEAST FILE")
	}
	least, err := strconv.Atoi(args[0])
	ts.Check(err)
	w := &crashWalk{hosts: h, ts: ts, dir: ts.Getenv("BANGER_CRASHPOINTS"), refs: map[string]hoststate.State{}, kinds: map[string]bool{}}
	var except []string
	points, begun := 0, time.Now()
	next := crashVerb{only: everything}
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		switch words[0] {
		case "except":
			except = append(except, words[1:]...)
		case "only":
			next.only, err = regexp.Compile(strings.Join(words[1:], " "))
			ts.Check(err)
		case "before":
			next.before = words[1:]
		case "after":
			next.after = words[1:]
		default:
			next.from, next.command = words[0], words[1:]
			points += w.verb(next)
			next = crashVerb{only: everything}
		}
	}
	w.arrange(gone)
	ts.Logf("%d points in %s", points, time.Since(begun).Round(time.Second))
	if points < least {
		ts.Fatalf("%d points, want at least %d", points, least)
	}
	for _, kind := range strings.Fields(w.read("kinds")) {
		if !w.kinds[kind] && !slices.Contains(except, kind) {
			ts.Fatalf("no verb is a %s", kind)
		}
	}
}

var everything = regexp.MustCompile("")

// verb does a verb once to learn its points, and then once for each, to die there.
func (w *crashWalk) verb(v crashVerb) int {
	name, begun := strings.Join(v.command, " "), time.Now()
	w.prepare(v)
	w.ts.Check(w.do(v.command))
	w.settle()
	points := distinct(w.read("passed"))
	w.note()
	w.try(v.after)
	points = slices.DeleteFunc(points, func(point string) bool { return !v.only.MatchString(point) })
	for _, point := range points {
		w.prepare(v)
		w.ts.Check(os.WriteFile(filepath.Join(w.dir, "kill"), []byte(point+"\n"), 0o600))
		_ = w.do(v.command) // the daemon dies under it, or right after it
		if err := until(w.ctx, waitEnd, func() bool { return w.has("killed") }); err != nil {
			w.ts.Fatalf("%s: %q was not come to: %v", name, point, err)
		}
		w.forget("killed")
		w.settle()
		w.ts.Logf("%s: %s", name, point)
		w.try(v.after)
		w.judge(name + ": " + point)
	}
	w.ts.Logf("%s: %d points in %s", name, len(points), time.Since(begun).Round(time.Second))
	return len(points)
}

// note adds the kinds of the newest operations.
func (w *crashWalk) note() {
	w.banger("op", "list", "--format", "{{.kind}}")
	for _, kind := range strings.Fields(w.ts.ReadFile("stdout")) {
		w.kinds[kind] = true
	}
}

// prepare makes everything ready for a verb.
func (w *crashWalk) prepare(v crashVerb) {
	w.arrange(v.from)
	w.try(v.before)
	w.forget("passed")
}

func (w *crashWalk) try(command []string) {
	if len(command) > 0 {
		w.ts.Check(w.ts.Exec(command[0], command[1:]...))
	}
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
			w.banger("vm", "create", "dev", "--image", "tiny", "--memory", "256M", "--work-disk", "64M", "--cold")
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
		if strings.TrimSpace(w.ts.ReadFile("stdout")) != "" {
			return false
		}
		w.banger("vm", "list", "--format", "{{.state}}")
		return !strings.Contains(w.ts.ReadFile("stdout"), "paused") // it is resumed by and by
	})
	if err != nil {
		w.ts.Fatalf("the daemon does not come to rest: %v", err)
	}
}

// anonymous is the host's state without the VM's id and addresses, and without whether it was booted: dev is made anew now and
// then, and an address rests before another VM has it.
func (w *crashWalk) anonymous() hoststate.State {
	s := w.now(w.ts)
	for i := range s {
		s[i] = strings.TrimSuffix(s[i], " --config-file firecracker.json")
		if strings.HasPrefix(s[i], "nft ") {
			s[i] = addresses.ReplaceAllStringFunc(s[i], nameless)
		}
	}
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

// addresses are those of an instance's guests and of the host towards them, and guests' MACs.
var addresses = regexp.MustCompile(`\b(10(\.\d+){3}|02:ba(:[0-9a-f]{2}){4}|f[de][0-9a-f]{2}:[0-9a-f:]+)`)

// nameless is an address without whose it is: the host's end in 1, or in nothing.
func nameless(address string) string {
	if strings.HasSuffix(address, ".1") || strings.HasSuffix(address, ":1") || strings.HasSuffix(address, "::") {
		return address
	}
	return "GUEST"
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
