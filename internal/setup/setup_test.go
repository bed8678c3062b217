package setup_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/fault"
	"banger/internal/setup"
)

// host is a root directory, and programs that change it as the real ones do.
type host struct {
	t    *testing.T
	root string
	ran  []string
	on   bool // the socket is enabled and active
}

func newHost(t *testing.T, systemd bool) *host {
	t.Helper()
	h := &host{t: t, root: t.TempDir()}
	h.write("etc/group", "root:x:0:\n")
	if systemd {
		h.write("run/systemd/system/.keep", "")
	}
	for _, name := range []string{"banger", "bangerd", "banger-agent"} {
		h.write("build/"+name, "first "+name)
	}
	return h
}

func (h *host) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.root, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *host) setup() setup.Setup {
	return setup.Setup{Root: h.root, Programs: filepath.Join(h.root, "build"), User: "alice", Run: h.run}
}

func (h *host) run(_ context.Context, argv []string) error {
	line := strings.Join(argv, " ")
	if strings.HasPrefix(line, "systemctl is-") {
		if h.on {
			return nil
		}
		return os.ErrNotExist
	}
	h.ran = append(h.ran, line)
	switch {
	case strings.HasPrefix(line, "groupadd"):
		h.write("etc/group", "root:x:0:\nbanger:x:990:\n")
	case strings.HasPrefix(line, "usermod"):
		h.write("etc/group", "root:x:0:\nbanger:x:990:bob,alice\n")
	case strings.HasPrefix(line, "groupdel"):
		h.write("etc/group", "root:x:0:\n")
	case strings.HasPrefix(line, "systemctl enable"):
		h.on = true
	case strings.HasPrefix(line, "systemctl disable"):
		h.on = false
	}
	return nil
}

// take plans, takes the steps that are left and says which.
func (h *host) take(plan func(context.Context) ([]setup.Step, error)) []string {
	h.t.Helper()
	steps, err := plan(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for i := range steps {
		if steps[i].Done {
			continue
		}
		if err := steps[i].Act(h.t.Context()); err != nil {
			h.t.Fatalf("%s: %v", steps[i].Do, err)
		}
		out = append(out, steps[i].Do)
	}
	return out
}

func TestInstall(t *testing.T) {
	h := newHost(t, true)
	got := h.take(h.setup().Install)
	want := []string{
		"copy banger to /usr/local/bin", "copy bangerd to /usr/local/bin", "copy banger-agent to /usr/local/lib/banger",
		"add group banger", "add alice to group banger",
		"write /etc/systemd/system/bangerd.socket", "write /etc/systemd/system/bangerd.service",
		"have systemd read its units", "enable and start bangerd.socket",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantRan := []string{
		"groupadd --system banger", "usermod --append --groups banger alice", "systemctl daemon-reload", "systemctl enable --now bangerd.socket",
	}
	if diff := cmp.Diff(wantRan, h.ran); diff != "" {
		t.Error(diff)
	}
	if got := h.read("usr/local/lib/banger/banger-agent"); got != "first banger-agent" {
		t.Errorf("the agent is %q", got)
	}
	st, err := os.Stat(filepath.Join(h.root, "usr/local/bin/bangerd"))
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("bangerd: %v, %v", st.Mode(), err)
	}
	for _, want := range []string{"ListenStream=/run/banger/bangerd.sock", "SocketGroup=banger", "SocketMode=0660"} {
		if !strings.Contains(h.read("etc/systemd/system/bangerd.socket"), want) {
			t.Errorf("the socket's unit lacks %s", want)
		}
	}
	for _, want := range []string{"ExecStart=/usr/local/bin/bangerd\n", "KillMode=process", "RuntimeDirectoryPreserve=yes"} {
		if !strings.Contains(h.read("etc/systemd/system/bangerd.service"), want) {
			t.Errorf("the service's unit lacks %s", want)
		}
	}

	// Again there is nothing to do; after a new build, only that.
	if got := h.take(h.setup().Install); got != nil {
		t.Errorf("the second run did %q", got)
	}
	h.write("build/bangerd", "second")
	if got := h.take(h.setup().Install); !cmp.Equal(got, []string{"copy bangerd to /usr/local/bin"}) {
		t.Errorf("after a new build it did %q", got)
	}

	// From where it was installed it installs itself, which is nothing.
	installed := h.setup()
	installed.Programs = filepath.Join(h.root, setup.BinDir)
	if got := h.take(installed.Install); got != nil {
		t.Errorf("the installed setup did %q", got)
	}
}

func TestUndo(t *testing.T) {
	h := newHost(t, true)
	before := tree(t, h.root)
	h.take(h.setup().Install)
	h.write("var/lib/banger/banger.db", "VMs")
	h.ran = nil
	h.take(h.setup().Undo)
	wantRan := []string{"systemctl disable --now bangerd.socket bangerd.service", "systemctl daemon-reload", "groupdel banger"}
	if diff := cmp.Diff(wantRan, h.ran); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(append(before, "var/lib/banger/banger.db"), tree(t, h.root)); diff != "" {
		t.Error(diff)
	}
	if got := h.take(h.setup().Undo); got != nil {
		t.Errorf("the second undo did %q", got)
	}
}

// tree lists the files below a directory.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, path)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWithoutSystemd(t *testing.T) {
	h := newHost(t, false)
	h.take(h.setup().Install)
	if want := []string{"groupadd --system banger", "usermod --append --groups banger alice"}; !cmp.Equal(h.ran, want) {
		t.Errorf("ran %q, want %q", h.ran, want)
	}
}

func TestProgramsMissing(t *testing.T) {
	h := newHost(t, true)
	if err := os.Remove(filepath.Join(h.root, "build/banger-agent")); err != nil {
		t.Fatal(err)
	}
	_, err := h.setup().Install(t.Context())
	f := fault.From(err)
	if f == nil || f.Code != fault.Requirement || f.Msg != "banger-agent is not beside banger" || f.Hint != "build all of them, with `make build`" {
		t.Errorf("got %v", f)
	}
	if len(h.ran) > 0 {
		t.Errorf("it ran %q", h.ran)
	}
}

func TestRun(t *testing.T) {
	if err := setup.Run(t.Context(), []string{"true"}); err != nil {
		t.Error(err)
	}
	err := setup.Run(t.Context(), []string{"sh", "-c", "echo it cannot; exit 4"})
	if f := fault.From(err); err == nil || f.Code != fault.Requirement || f.Msg != "exit status 4" || f.Detail != "it cannot" {
		t.Errorf("got %v", err)
	}
}
