// Package archtest holds the project's layout to its rules. Each rule says why it exists, because a
// failing test is where most people will meet it first.
package archtest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

const root = "../.."

// rule forbids or allows imports between places of the tree.
type rule struct {
	name   string
	why    string
	in     []string // packages it is about, as path prefixes below the module; "" means all
	except []string // packages excused from it
	only   []string // if set: imports of the module and of third parties must have one of these prefixes
	forbid []string // import path prefixes that may not appear
}

var rules = []rule{
	{
		name: "programs", why: "every program we run goes through one place that keeps its arguments, bounds its output and ends it with its context",
		in: []string{""}, except: []string{"internal/host/exec", "internal/host/firecracker", "internal/lab", "cmd/banger-lab", "internal/agent", "internal/cli/ssh", "internal/cli/daemonstart", "internal/setup"},
		forbid: []string{"os/exec"},
	},
	{
		name: "fault", why: "the innermost packages use it, so it may need nothing",
		in: []string{"internal/fault"}, only: []string{},
	},
	{
		name: "nouns", why: "types and rules that perform no I/O can be tested by tables and used everywhere",
		in:   []string{"internal/vm", "internal/image", "internal/network", "internal/op", "internal/event", "internal/admission", "internal/reconcile", "internal/snapshot"},
		only: []string{"banger/internal/fault", "banger/internal/vm", "banger/internal/image", "banger/internal/network", "banger/internal/op", "banger/internal/event"},
	},
	{
		name: "verbs", why: "lifecycle, doctor, usage and the features see ports, so that a fake host can fail each of their effects",
		in:     []string{"internal/lifecycle", "internal/doctor", "internal/feature", "internal/usage"},
		forbid: []string{"banger/internal/host", "banger/internal/store", "banger/internal/server", "banger/internal/daemon", "banger/internal/client", "banger/internal/cli"},
	},
	{
		name: "people", why: "what people touch works the same against a daemon on another machine, so it knows only the API",
		in:     []string{"internal/cli", "cmd/banger"},
		forbid: []string{"banger/internal/host/firecracker", "banger/internal/host/link", "banger/internal/host/block", "banger/internal/store", "banger/internal/server", "banger/internal/daemon", "banger/internal/lifecycle", "banger/internal/guest", "banger/internal/agent/", "github.com/danielgtaylor/huma", "modernc.org/sqlite"},
	},
	{
		name: "agent", why: "the agent is loaded by every boot and stays resident in every guest, so it is kept small: SSH is the one thing of weight in it",
		in:   []string{"internal/agent", "internal/agentproto", "cmd/banger-agent"},
		only: []string{"banger/internal/agent", "banger/internal/agentproto", "banger/internal/buildinfo", "banger/internal/procnet", "banger/internal/relay", "github.com/mdlayher/vsock", "github.com/pkg/sftp", "github.com/vishvananda/netlink", "golang.org/x/crypto/ssh", "golang.org/x/sys"},
	},
	{
		name: "kernel", why: "only host packages touch the kernel; everything else is testable without one",
		in: []string{"internal"}, except: []string{"internal/host", "internal/agent", "internal/lab", "internal/daemon"},
		forbid: []string{"github.com/vishvananda/netlink", "github.com/google/nftables"},
	},
	{
		name: "mirror", why: "one composition root: nothing but a main package may see the package that sees everything",
		in: []string{"internal"}, except: []string{"internal/daemon"}, forbid: []string{"banger/internal/daemon"},
	},
}

func TestImports(t *testing.T) {
	pkgs := load(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			seen := 0
			for _, p := range pkgs {
				place := strings.TrimPrefix(p.PkgPath, "banger/")
				if !under(place, r.in) || under(place, r.except) && len(r.except) > 0 {
					continue
				}
				seen++
				for path := range p.Imports {
					if r.only != nil && strings.Contains(path, "/") && !standard(path) && !hasPrefix(path, r.only) {
						t.Errorf("%s imports %s: rule %q allows it only %v\nwhy: %s", place, path, r.name, r.only, r.why)
					}
					if hasPrefix(path, r.forbid) {
						t.Errorf("%s imports %s, which rule %q forbids\nwhy: %s", place, path, r.name, r.why)
					}
				}
			}
			if seen == 0 {
				t.Errorf("rule %q is about %v, where there is no package: it holds nothing", r.name, r.in)
			}
		})
	}
}

func TestPackageNames(t *testing.T) {
	for _, p := range load(t) {
		for _, word := range []string{"util", "utils", "common", "helper", "helpers", "misc", "shared"} {
			if filepath.Base(p.PkgPath) == word {
				t.Errorf("package %s: name it after what it is, not after the fact that others use it", p.PkgPath)
			}
		}
	}
}

// TestNoInitNoGlobals keeps state out of packages: init() and mutable package variables make the
// order of imports matter and tests leak into each other.
func TestNoInitNoGlobals(t *testing.T) {
	eachFile(t, func(path string, f *ast.File) {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: func init: wire things up in a main package or in internal/daemon, where the order can be read", path)
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, s := range d.Specs {
					v, ok := s.(*ast.ValueSpec)
					if ok && len(v.Values) == 0 && v.Names[0].Name != "_" && !embedded(d, v) && !stamped(path) {
						t.Errorf("%s: package variable %s has no value, so something must set it: make it a field", path, v.Names[0].Name)
					}
				}
			}
		}
	})
}

// stamped files hold what the linker fills in.
func stamped(path string) bool { return strings.Contains(path, "internal/buildinfo/") }

func embedded(d *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, g := range []*ast.CommentGroup{d.Doc, v.Doc} {
		if g == nil {
			continue
		}
		for _, c := range g.List {
			if strings.HasPrefix(c.Text, "//go:embed") {
				return true
			}
		}
	}
	return false
}

// TestFileLength keeps files readable in one sitting. A longer one says why in its first comment,
// with the words "long because".
func TestFileLength(t *testing.T) {
	const limit = 600
	walk(t, func(path string, src []byte) {
		if n := bytes.Count(src, []byte("\n")); n > limit && !bytes.Contains(src[:min(len(src), 2000)], []byte("long because")) {
			t.Errorf("%s has %d lines, more than %d: cut it where a reader would, or say in its first comment why it is long", path, n, limit)
		}
	})
}

// TestNoSkips holds that a test which lacks what it needs fails: a skipped test protects nothing.
func TestNoSkips(t *testing.T) {
	words := []string{"t.Ski" + "p", "testing.Sho" + "rt("}
	walk(t, func(path string, src []byte) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		sc := bufio.NewScanner(bytes.NewReader(src))
		for n := 1; sc.Scan(); n++ {
			for _, w := range words {
				if strings.Contains(sc.Text(), w) {
					t.Errorf("%s:%d: %s: a missing requirement fails the test, it never skips it", path, n, w)
				}
			}
		}
	})
}

func load(t *testing.T) []*packages.Package {
	t.Helper()
	cfg := &packages.Config{Context: t.Context(), Dir: root, Mode: packages.NeedName | packages.NeedImports | packages.NeedFiles}
	pkgs, err := packages.Load(cfg, "banger/...")
	if err != nil {
		t.Fatal(err)
	}
	if packages.PrintErrors(pkgs) > 0 {
		t.Fatal("the tree does not load")
	}
	if len(pkgs) < 10 {
		t.Fatalf("only %d packages were found: the rules would hold nothing", len(pkgs))
	}
	return pkgs
}

func under(place string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return p == "" || place == p || strings.HasPrefix(place, p+"/")
	})
}

func hasPrefix(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return path == strings.TrimSuffix(p, "/") || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/")
	})
}

// standard reports whether an import path belongs to the standard library: no dot in its first
// element, and not ours.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return first != "banger" && !strings.Contains(first, ".")
}

func eachFile(t *testing.T, visit func(path string, f *ast.File)) {
	t.Helper()
	walk(t, func(path string, src []byte) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		visit(path, f)
	})
}

func walk(t *testing.T, visit func(path string, src []byte)) {
	t.Helper()
	tree, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	seen := 0
	err = fs.WalkDir(tree.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || path == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := tree.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		seen++
		visit(path, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Fatal("no Go file was found")
	}
}
