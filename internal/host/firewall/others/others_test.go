package others_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"banger/internal/fault"
	"banger/internal/host/exec"
	"banger/internal/host/firewall/others"
	"banger/internal/netnstest"
)

// chains makes tables with chains, as other firewalls do.
func chains(t *testing.T, family nftables.TableFamily, table string, names ...string) {
	c, err := nftables.New()
	if err != nil {
		t.Error(err)
		return
	}
	made := c.AddTable(&nftables.Table{Family: family, Name: table})
	for _, name := range names {
		c.AddChain(&nftables.Chain{Table: made, Name: name})
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
}

// programs stand in for iptables, ufw and firewall-cmd: each keeps what it was told, and prints it as the real one does.
type programs struct {
	rules map[string][]string // by program
	fail  string              // command lines that have this fail
	ran   []string
}

func (p *programs) Run(_ context.Context, c exec.Command) (exec.Result, error) {
	name, line := c.Argv[0], strings.Join(c.Argv, " ")
	p.ran = append(p.ran, line)
	if p.fail != "" && strings.Contains(line, p.fail) {
		return exec.Result{}, &exec.Error{Argv: c.Argv, Status: 4, Err: errors.New("exit status 4"), Stderr: "Another app is currently holding the lock"}
	}
	rest := strings.Join(c.Argv[1:], " ")
	rest = strings.TrimPrefix(rest, "-w 5 ")
	switch verb, rule, _ := strings.Cut(rest, " DOCKER-USER"); verb {
	case "-S":
		return exec.Result{Stdout: []byte("-N DOCKER-USER\n" + strings.Join(p.rules[name], "\n") + "\n")}, nil
	case "-I":
		p.rules[name] = append([]string{"-A DOCKER-USER" + rule}, p.rules[name]...)
		return exec.Result{}, nil
	case "-D":
		at := slices.Index(p.rules[name], "-A DOCKER-USER"+rule)
		p.rules[name] = slices.Delete(p.rules[name], at, at+1)
		return exec.Result{}, nil
	}
	switch {
	case rest == "show added":
		return exec.Result{Stdout: []byte("Added user rules (see 'ufw status' for running firewall):\n" + strings.Join(p.rules[name], "\n") + "\n")}, nil
	case name == "ufw" && strings.Contains(rest, "delete "):
		gone := "ufw " + strings.Replace(rest, "delete ", "", 1) + " comment "
		p.rules[name] = slices.DeleteFunc(p.rules[name], func(rule string) bool { return strings.HasPrefix(rule, gone) })
	case name == "ufw":
		p.rules[name] = append(p.rules[name], line)
	case strings.HasSuffix(rest, "--list-interfaces"):
		return exec.Result{Stdout: []byte(strings.Join(p.rules[name], " ") + "\n")}, nil
	case strings.Contains(rest, "--add-interface="):
		_, device, _ := strings.Cut(rest, "--add-interface=")
		p.rules[name] = append(p.rules[name], device)
	case strings.Contains(rest, "--remove-interface="):
		p.rules[name] = nil
	default:
		return exec.Result{}, errors.New("not expected: " + line)
	}
	return exec.Result{}, nil
}

const dockers = "-A DOCKER-USER -j RETURN"

// host is one with all of them.
func host(t *testing.T) (*programs, *others.Others) {
	root := t.TempDir()
	for name, text := range map[string]string{"etc/ufw/ufw.conf": "# on\nENABLED=yes\n", "etc/default/ufw": "DEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_FORWARD_POLICY=\"DROP\"\n"} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Error(err)
		}
	}
	chains(t, nftables.TableFamilyIPv4, "filter", "DOCKER-USER", "ufw-before-forward")
	chains(t, nftables.TableFamilyIPv6, "filter", "DOCKER-USER")
	chains(t, nftables.TableFamilyINet, "firewalld")
	p := &programs{rules: map[string][]string{"iptables-nft": {dockers}, "ip6tables-nft": {dockers}, "firewall-cmd": {"lo"}}}
	return p, others.New("ab12", p, root)
}

func TestOneNamedAcceptInEach(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		p, o := host(t)
		want := []string{"Docker", "Docker", "ufw", "firewalld"}
		for _, again := range [][]string{want, nil} { // the second time it is there
			added, err := o.Ensure(t.Context())
			if d := cmp.Diff(again, added); d != "" || err != nil {
				t.Errorf("added %s, %v", d, err)
			}
		}
		chain := []string{
			"-A DOCKER-USER -o banger-ab12+ -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment banger-ab12 -j ACCEPT",
			"-A DOCKER-USER -i banger-ab12+ -m comment --comment banger-ab12 -j ACCEPT", dockers,
		}
		ufw := []string{
			"ufw route allow in on banger-ab12+ comment banger-ab12",
			"ufw allow in on banger-ab12+ to any port 53 comment banger-ab12",
			"ufw allow in on banger-ab12+ to any port 67 proto udp comment banger-ab12",
		}
		if d := cmp.Diff(map[string][]string{
			"iptables-nft": chain, "ip6tables-nft": chain, "ufw": ufw, "firewall-cmd": {"lo", "banger-ab12+"},
		}, p.rules); d != "" {
			t.Error(d)
		}
		// One that Docker's user restored twice, and one of which half was lost.
		p.rules["iptables-nft"] = append(slices.Clone(chain[:2]), chain...)
		p.rules["ip6tables-nft"] = chain[1:]
		p.rules["ufw"] = slices.Clone(ufw[1:2])
		added, err := o.Ensure(t.Context())
		if d := cmp.Diff([]string{"Docker", "ufw"}, added); d != "" || err != nil {
			t.Errorf("added %s, %v", d, err)
		}
		p.rules["ip6tables-nft"] = slices.Delete(p.rules["ip6tables-nft"], 0, 1)
		removed, err := o.Remove(t.Context())
		if d := cmp.Diff(want, removed); d != "" || err != nil {
			t.Errorf("removed %s, %v", d, err)
		}
		for program, left := range p.rules {
			if !slices.ContainsFunc([][]string{{dockers}, {"lo"}, nil}, func(w []string) bool { return slices.Equal(w, left) }) && program != "firewall-cmd" {
				t.Errorf("%s is left with %q", program, left)
			}
		}
	})
}

// oneAtATime has the programs say when two run at once.
type oneAtATime struct {
	*programs
	t    *testing.T
	busy atomic.Bool
}

func (p *oneAtATime) Run(ctx context.Context, c exec.Command) (exec.Result, error) {
	if p.busy.Swap(true) {
		p.t.Errorf("%q is run while another is", c.Argv)
	}
	for range 100 {
		runtime.Gosched() // the others get their chance
	}
	defer p.busy.Store(false)
	return p.programs.Run(ctx, c)
}

func TestSeveralAtOnceAddOnce(t *testing.T) {
	root := t.TempDir()
	names := filepath.Join(root, "proc/net/ip_tables_names") // of the older kind, which every thread finds
	if err := errors.Join(os.MkdirAll(filepath.Dir(names), 0o755), os.WriteFile(names, []byte("filter\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := &oneAtATime{programs: &programs{rules: map[string][]string{}}, t: t}
	o := others.New("ab12", p, root)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := o.Ensure(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for program, rules := range p.rules {
		if len(rules) != 2 {
			t.Errorf("%s has %q", program, rules)
		}
	}
}

// ufw keeps what it was told while it is off, and has it again when it is turned on.
func TestWhatUfwKeepsGoesToo(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/ufw/ufw.conf", "ENABLED=no\n")
	write("etc/ufw/user.rules", "-A ufw-user-input -i eth0 -p tcp --dport 22 -j ACCEPT\n")
	p := &programs{rules: map[string][]string{"ufw": {"ufw allow in on eth0"}}}
	o := others.New("ab12", p, root)
	if removed, err := o.Remove(t.Context()); err != nil || len(removed) > 0 || len(p.ran) > 0 {
		t.Errorf("removed %q, %v, ran %q", removed, err, p.ran)
	}
	p.rules["ufw"] = append(p.rules["ufw"], "ufw allow in on banger-ab12+ to any port 53 comment 'banger-ab12'")
	write("etc/ufw/user.rules", "-A ufw-user-input -i banger-ab12+ -p tcp --dport 53 -j ACCEPT\n")
	if added, err := o.Ensure(t.Context()); err != nil || len(added) > 0 {
		t.Errorf("added %q, %v", added, err)
	}
	removed, err := o.Remove(t.Context())
	if d := cmp.Diff([]string{"ufw"}, removed); d != "" || err != nil {
		t.Errorf("removed %s, %v", d, err)
	}
	if d := cmp.Diff([]string{"ufw allow in on eth0"}, p.rules["ufw"]); d != "" {
		t.Error(d)
	}
}

func TestAHostWithoutOthersRunsNothing(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		p := &programs{}
		o := others.New("ab12", p, t.TempDir())
		_, err := o.Ensure(t.Context())
		_, err2 := o.Remove(t.Context())
		if list, err3 := o.List(t.Context()); len(list) > 0 || errors.Join(err, err2, err3) != nil || len(p.ran) > 0 {
			t.Errorf("%v, %v, ran %q", list, errors.Join(err, err2, err3), p.ran)
		}
	})
}

func TestWhatFailsKeepsNothingElseFromIt(t *testing.T) {
	netnstest.In(t, func(t *testing.T) {
		p, o := host(t)
		p.fail = "iptables-nft -w 5 -I"
		added, err := o.Ensure(t.Context())
		if d := cmp.Diff([]string{"Docker", "ufw", "firewalld"}, added); d != "" {
			t.Error(d)
		}
		const want = `let VMs through Docker "iptables DOCKER-USER": iptables-nft: exit status 4: Another app is currently holding the lock`
		if err == nil || err.Error() != want || !strings.Contains(fault.From(err).Hint, "`iptables -I DOCKER-USER -i banger-ab12+") {
			t.Errorf("got %v", err)
		}
		list, err := o.List(t.Context())
		if len(list) != 4 || list[0].There || !list[1].There || err != nil {
			t.Errorf("%+v, %v", list, err)
		}
	})
}
