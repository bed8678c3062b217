package others

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"

	"banger/internal/host/exec"
)

// dockerChain is where Docker has its users' rules, before its own. Docker makes it and never changes what is in it.
const dockerChain = "DOCKER-USER"

// family is one of the two that Docker has rules for.
type family struct {
	program string // which of iptables
	tables  string // where the kernel tells which tables of the older kind it has
	nft     nftables.TableFamily
}

var (
	family4 = family{"iptables", "proc/net/ip_tables_names", nftables.TableFamilyIPv4}
	family6 = family{"ip6tables", "proc/net/ip6_tables_names", nftables.TableFamilyIPv6}
)

// docker is Docker's chain of one family. Its own rules let replies in for its own networks only, so there is one accept for
// each direction.
func (o *Others) docker(f family) place {
	rules := [][]string{
		{"-i", o.name + "+", "-m", "comment", "--comment", o.name, "-j", "ACCEPT"},
		{"-o", o.name + "+", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-m", "comment", "--comment", o.name, "-j", "ACCEPT"},
	}
	// count tells how often each rule is in the chain, and by which program it is changed: none where there is no chain.
	count := func(ctx context.Context) (program string, n []int, err error) {
		program, text, err := o.dockerRules(ctx, f)
		for _, rule := range rules {
			times := 0
			for line := range strings.Lines(text) {
				if strings.TrimSpace(line) == "-A "+dockerChain+" "+strings.Join(rule, " ") {
					times++
				}
			}
			n = append(n, times)
		}
		return program, n, err
	}
	// bring has each rule in the chain so often, by this way of changing it.
	bring := func(ctx context.Context, how string, done func(times int) bool) error {
		program, n, err := count(ctx)
		if err != nil || program == "" {
			return err
		}
		for i, rule := range rules {
			times := n[i]
			for range maxCopies {
				if done(times) {
					break
				}
				if _, err := o.program(ctx, slices.Concat([]string{program, "-w", "5", how, dockerChain}, rule)...); err != nil {
					return err
				}
				if how == "-I" {
					times++
				} else {
					times--
				}
			}
		}
		return nil
	}
	insert := []string{f.program, "-I", dockerChain}
	return place{
		firewall: "Docker", where: f.program + " " + dockerChain,
		rules: quote(slices.Concat(insert, rules[0])...) + " and " + quote(slices.Concat(insert, rules[1])...),
		look: func(ctx context.Context) (has, of int, err error) {
			program, n, err := count(ctx)
			if err != nil || program == "" {
				return 0, 0, err
			}
			for _, times := range n {
				has += min(times, 1)
			}
			return has, len(rules), nil
		},
		add:    func(ctx context.Context) error { return bring(ctx, "-I", func(times int) bool { return times > 0 }) },
		remove: func(ctx context.Context) error { return bring(ctx, "-D", func(times int) bool { return times == 0 }) },
	}
}

// maxCopies bounds how often one rule is removed: somebody may have saved the rules and restored them beside themselves.
const maxCopies = 16

// dockerRules lists what is in Docker's chain, with the program for the kind of tables that it is in; none where there is
// no such chain. No program is run that would load tables which the kernel has not.
func (o *Others) dockerRules(ctx context.Context, f family) (program, rules string, err error) {
	there, err := nftChain(f.nft, dockerChain)
	if err != nil {
		return "", "", err
	}
	if there {
		program = f.program + "-nft"
	} else {
		if old, err := o.legacyFilter(f); err != nil || !old {
			return "", "", err
		}
		program = f.program + "-legacy"
	}
	rules, err = o.program(ctx, program, "-w", "5", "-S", dockerChain)
	if failed, ok := errors.AsType[*exec.Error](err); ok && failed.Status == 1 {
		return "", "", nil // no such chain
	}
	return program, rules, err
}

// legacyFilter reports whether the kernel has a filter table of the kind that came before nftables.
func (o *Others) legacyFilter(f family) (bool, error) {
	tables, err := os.ReadFile(filepath.Join(o.root, f.tables))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Fields(string(tables)), "filter"), err
}

// nftChain reports whether nftables has a chain of this name in the table that iptables keeps its filter rules in.
func nftChain(family nftables.TableFamily, name string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(family)
	return slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == name && c.Table.Name == "filter" }), err
}
