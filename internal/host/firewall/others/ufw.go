package others

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
)

// ufw is ufw's list of routes, which it keeps over its reload and the host's. It lets replies pass by itself.
func (o *Others) ufw() place {
	rule := []string{"allow", "in", "on", o.name + "+", "comment", o.name}
	return place{
		firewall: "ufw", where: "ufw route",
		rules: quote(append([]string{"ufw", "route"}, rule...)...),
		look: func(ctx context.Context) (has, of int, err error) {
			if there, err := o.ufwDrops(); err != nil || !there {
				return 0, 0, err
			}
			text, err := o.program(ctx, "ufw", "show", "added")
			if err != nil {
				return 0, 0, err
			}
			for line := range strings.Lines(text) {
				if strings.HasPrefix(strings.TrimSpace(line), "ufw route allow in on "+o.name+"+") {
					return 1, 1, nil
				}
			}
			return 0, 1, nil
		},
		add:    o.change(append([]string{"ufw", "route"}, rule...)...),
		remove: o.change(append([]string{"ufw", "route", "delete"}, rule[:4]...)...),
	}
}

// ufwDrops reports whether ufw is on and drops what the host forwards.
func (o *Others) ufwDrops() (bool, error) {
	on, err := o.setting("etc/ufw/ufw.conf", "ENABLED")
	if err != nil || !strings.EqualFold(on, "yes") {
		return false, err
	}
	policy, err := o.setting("etc/default/ufw", "DEFAULT_FORWARD_POLICY")
	if err != nil || strings.EqualFold(policy, "ACCEPT") {
		return false, err
	}
	there, err := nftChain(nftables.TableFamilyIPv4, "ufw-before-forward")
	if err != nil || there {
		return there, err
	}
	legacy, err := o.legacyFilter(family4)
	return legacy, err
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
