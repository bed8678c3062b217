// Package setup installs banger on a host: programs, the group whose members may use it, and systemd's
// units. It plans first and shows the plan; a second run finds nothing to do; undo removes what it
// installed and never touches a VM.
package setup

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"banger/internal/fault"
)

// Group is whose members use the daemon's socket, as the daemon's configuration has it by default.
const Group = "banger"

// Where things are installed, below the root. The daemon finds the agent in ../lib/banger.
const (
	BinDir  = "usr/local/bin"
	LibDir  = "usr/local/lib/banger"
	UnitDir = "etc/systemd/system"

	socketUnit  = "bangerd.socket"
	serviceUnit = "bangerd.service"
)

//go:embed bangerd.socket
var socketText string

//go:embed bangerd.service
var serviceText string

// Setup knows the host it is for. Root, Programs and Run are required.
type Setup struct {
	Root     string                                         // the host's root directory
	Programs string                                         // where banger, bangerd and banger-agent are now
	User     string                                         // whom to add to the group; empty is nobody
	Run      func(ctx context.Context, argv []string) error // runs a program and waits for it
}

// Step is one change to the host.
type Step struct {
	Do   string `json:"do"`   // what it does, such as "copy bangerd to /usr/local/bin"
	Done bool   `json:"done"` // the host is so already, or now
	act  func(context.Context) error
}

// Act takes the step unless it is done.
func (s *Step) Act(ctx context.Context) error {
	if s.Done {
		return nil
	}
	err := s.act(ctx)
	s.Done = err == nil
	return err
}

// Systemd reports whether the host's services are systemd's.
func (s Setup) Systemd() bool {
	st, err := os.Stat(s.path("run/systemd/system"))
	return err == nil && st.IsDir()
}

// Install plans what installs banger.
func (s Setup) Install(ctx context.Context) ([]Step, error) {
	var steps []Step
	for _, p := range programs() {
		step, err := s.copyProgram(p)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	members, there, err := s.group()
	if err != nil {
		return nil, err
	}
	steps = append(steps, Step{"add group " + Group, there, s.program("groupadd", "--system", Group)})
	if s.User != "" && s.User != "root" {
		steps = append(steps, Step{
			"add " + s.User + " to group " + Group, slices.Contains(members, s.User),
			s.program("usermod", "--append", "--groups", Group, s.User),
		})
	}
	if !s.Systemd() {
		return steps, nil
	}
	units, err := s.units()
	if err != nil {
		return nil, err
	}
	changed := false
	for _, name := range []string{socketUnit, serviceUnit} {
		step, err := s.write(filepath.Join(UnitDir, name), units[name], 0o644)
		if err != nil {
			return nil, err
		}
		changed = changed || !step.Done
		steps = append(steps, step)
	}
	serves := s.Run(ctx, []string{"systemctl", "is-enabled", "--quiet", socketUnit}) == nil &&
		s.Run(ctx, []string{"systemctl", "is-active", "--quiet", socketUnit}) == nil
	return append(steps,
		Step{"have systemd read its units", !changed, s.program("systemctl", "daemon-reload")},
		Step{"enable and start " + socketUnit, serves && !changed, s.program("systemctl", "enable", "--now", socketUnit)},
	), nil
}

// Undo plans what removes what Install installed. VMs, images and configuration stay.
func (s Setup) Undo(context.Context) ([]Step, error) {
	var steps []Step
	if s.Systemd() && s.exists(filepath.Join(UnitDir, socketUnit)) {
		steps = append(steps, Step{Do: "stop and disable " + socketUnit + " and " + serviceUnit, act: s.program("systemctl", "disable", "--now", socketUnit, serviceUnit)})
	}
	removed := false
	for _, name := range []string{socketUnit, serviceUnit} {
		step := s.remove(filepath.Join(UnitDir, name))
		removed = removed || !step.Done
		steps = append(steps, step)
	}
	if s.Systemd() {
		steps = append(steps, Step{"have systemd read its units", !removed, s.program("systemctl", "daemon-reload")})
	}
	for _, p := range programs() {
		steps = append(steps, s.remove(filepath.Join(p.dir, p.name)))
	}
	_, there, err := s.group()
	return append(steps, Step{"remove group " + Group, !there, s.program("groupdel", Group)}), err
}

type program struct{ name, dir string }

func programs() []program {
	return []program{{"banger", BinDir}, {"bangerd", BinDir}, {"banger-agent", LibDir}}
}

// companion is where a program is before it is installed, or where an earlier setup put it.
func (s Setup) companion(p program) (content []byte, err error) {
	for _, dir := range []string{s.Programs, filepath.Join(s.Programs, "../lib/banger")} {
		content, err = os.ReadFile(filepath.Join(dir, p.name))
		if !errors.Is(err, fs.ErrNotExist) {
			return content, err
		}
	}
	return nil, fault.New(fault.Requirement, "%s is not beside banger", p.name).WithOp("install from", s.Programs).
		WithHint("build all of them, with `make build`")
}

func (s Setup) copyProgram(p program) (Step, error) {
	content, err := s.companion(p)
	if err != nil {
		return Step{}, err
	}
	step, err := s.write(filepath.Join(p.dir, p.name), content, 0o755)
	step.Do = "copy " + p.name + " to /" + p.dir
	return step, err
}

// write plans a file with this content. It is replaced whole: a daemon that runs keeps its own.
func (s Setup) write(name string, content []byte, mode fs.FileMode) (Step, error) {
	path := s.path(name)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Step{}, fault.System(err, "read", path)
	}
	return Step{"write /" + name, err == nil && bytes.Equal(old, content), func(context.Context) error {
		err := os.MkdirAll(filepath.Dir(path), 0o755) //nolint:gosec // everyone runs programs
		if err == nil {
			err = os.WriteFile(path+".new", content, mode)
		}
		if err == nil {
			err = os.Chmod(path+".new", mode) // whatever the umask
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		return fault.System(err, "install", path)
	}}, nil
}

func (s Setup) remove(name string) Step {
	path := s.path(name)
	return Step{"remove /" + name, !s.exists(name), func(context.Context) error {
		return fault.System(os.Remove(path), "remove", path)
	}}
}

func (s Setup) program(argv ...string) func(context.Context) error {
	return func(ctx context.Context) error { return s.Run(ctx, argv) }
}

func (s Setup) path(name string) string { return filepath.Join(s.Root, name) }

func (s Setup) exists(name string) bool {
	_, err := os.Lstat(s.path(name))
	return err == nil
}

// group reads the group's members.
func (s Setup) group() (members []string, there bool, err error) {
	text, err := os.ReadFile(s.path("etc/group"))
	if err != nil {
		return nil, false, fault.System(err, "read", s.path("etc/group"))
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) == 4 && fields[0] == Group {
			return strings.Split(fields[3], ","), true, nil
		}
	}
	return nil, false, nil
}

// units renders systemd's units.
func (s Setup) units() (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, text := range map[string]string{socketUnit: socketText, serviceUnit: serviceText} {
		t, err := template.New(name).Option("missingkey=error").Parse(text)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, map[string]string{"Group": Group, "Bin": "/" + BinDir}); err != nil {
			return nil, err
		}
		out[name] = b.Bytes()
	}
	return out, nil
}
