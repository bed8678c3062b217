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
)

// ufw is ufw's lists of routes and of what comes in, which it keeps over its reload and the host's. It lets replies pass by itself,
// and pings. Of what comes in it drops what guests ask the host: names and leases.
func (o *Others) ufw() place {
	device := o.name + "+"
	rules := []struct {
		policy string // by which ufw drops what it lets pass
		rule   []string
	}{
		{"DEFAULT_FORWARD_POLICY", []string{"route", "allow", "in", "on", device}},
		{"DEFAULT_INPUT_POLICY", []string{"allow", "in", "on", device, "to", "any", "port", "53"}},
		{"DEFAULT_INPUT_POLICY", []string{"allow", "in", "on", device, "to", "any", "port", "67", "proto", "udp"}},
	}
	// each does something about each rule that ufw is to have, or that it keeps while it is off.
	each := func(ctx context.Context, do func(rule []string, there bool) error) error {
		on, err := o.ufwOn()
		if err != nil {
			return err
		}
		if !on {
			if kept, err := o.ufwKeeps(device); err != nil || !kept {
				return err
			}
		}
		text, err := o.program(ctx, "ufw", "show", "added")
		if err != nil {
			return err
		}
		for _, r := range rules {
			policy, err := o.setting("etc/default/ufw", r.policy)
			if err != nil {
				return err
			}
			there := slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
				return strings.HasPrefix(line, "ufw "+strings.Join(r.rule, " ")+" comment ")
			})
			if !there && (!on || strings.EqualFold(policy, "ACCEPT")) {
				continue // nor need it be
			}
			if err := do(r.rule, there); err != nil {
				return err
			}
		}
		return nil
	}
	var all []string
	for _, r := range rules {
		all = append(all, quote(slices.Concat([]string{"ufw"}, r.rule, []string{"comment", o.name})...))
	}
	return place{
		firewall: "ufw", where: "ufw's rules",
		rules: strings.Join(all, " and "),
		look: func(ctx context.Context) (has, of int, err error) {
			err = each(ctx, func(_ []string, there bool) error {
				of++
				if there {
					has++
				}
				return nil
			})
			return has, of, err
		},
		add: func(ctx context.Context) error {
			return each(ctx, func(rule []string, there bool) error {
				if there {
					return nil
				}
				_, err := o.program(ctx, slices.Concat([]string{"ufw"}, rule, []string{"comment", o.name})...)
				return err
			})
		},
		remove: func(ctx context.Context) error {
			return each(ctx, func(rule []string, there bool) error {
				if !there {
					return nil
				}
				how := []string{"ufw", "delete"}
				if rule[0] == "route" {
					how, rule = []string{"ufw", "route", "delete"}, rule[1:]
				}
				_, err := o.program(ctx, slices.Concat(how, rule)...)
				return err
			})
		},
	}
}

// ufwOn reports whether ufw is on.
func (o *Others) ufwOn() (bool, error) {
	on, err := o.setting("etc/ufw/ufw.conf", "ENABLED")
	if err != nil || !strings.EqualFold(on, "yes") {
		return false, err
	}
	there, err := nftChain(nftables.TableFamilyIPv4, "ufw-before-forward")
	if err != nil || there {
		return there, err
	}
	legacy, err := o.legacyFilter(family4)
	return legacy, err
}

// ufwKeeps reports whether a rule in ufw's list has the device. To ask ufw itself would run a program where it is never on.
func (o *Others) ufwKeeps(device string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(o.root, "etc/ufw/user.rules"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.Contains(string(text), " "+device+" "), err
}

// setting reads KEY=VALUE of a file; empty where there is none.
func (o *Others) setting(file, key string) (string, error) {
	text, err := os.ReadFile(filepath.Join(o.root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(value, `"'`), err
		}
	}
	return "", err
}
