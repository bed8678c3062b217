// Package hoststate tells what exists on a Linux host that a VM could leave behind: processes,
// network devices, firewall rules, loop and device-mapper devices, mounts, cgroups and sockets. Two
// states of one host, before and after, show a leak as text.
package hoststate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// State is one line for each thing that exists, such as "link bgr0 master br0", sorted. A thing that
// exists twice has two lines.
type State []string

// Options says what is looked at and what is no leak.
type Options struct {
	// Below limits sockets and directories to one tree, absolute; empty leaves them out.
	Below string
	// Ignore lists programs by base name that may come and go, such as the daemon under test.
	Ignore []string
}

// Read reads a host's state. host is its root directory; ruleset is nftables' without counters.
func Read(host fs.FS, ruleset []byte, o Options) (State, error) {
	var s State
	for _, part := range []func(fs.FS, Options) ([]string, error){processes, links, loops, mappings, mounts, cgroups, sockets, directories} {
		lines, err := part(host, o)
		if err != nil {
			return nil, fmt.Errorf("read host state: %w", err)
		}
		s = append(s, lines...)
	}
	for line := range bytes.Lines(ruleset) {
		if line := strings.TrimSpace(string(line)); line != "" && line != "}" {
			s = append(s, "nft "+line)
		}
	}
	slices.Sort(s)
	return s, nil
}

// Diff returns what differs, "+ " before what came and "- " before what went; none for equal states.
func Diff(before, after State) []string {
	count := map[string]int{}
	for _, line := range after {
		count[line]++
	}
	for _, line := range before {
		count[line]--
	}
	var out []string
	for _, line := range slices.Sorted(maps.Keys(count)) {
		for n := count[line]; n > 0; n-- {
			out = append(out, "+ "+line)
		}
		for n := count[line]; n < 0; n++ {
			out = append(out, "- "+line)
		}
	}
	return out
}

// processes lists what runs in user space. Pids are left out: they say nothing across two states.
func processes(host fs.FS, o Options) ([]string, error) {
	dirs, err := fs.Glob(host, "proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, dir := range dirs {
		raw, err := fs.ReadFile(host, dir+"/cmdline")
		if err != nil || len(raw) == 0 {
			continue // it has ended by now, or is a kernel thread or a zombie
		}
		args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
		if !slices.Contains(o.Ignore, path.Base(args[0])) {
			out = append(out, "process "+strings.Join(args, " "))
		}
	}
	return out, nil
}

// links lists network devices, with the bridges that they are on. TAPs that are kept ready are left out while something
// else is on their bridge: how many there are changes by itself. Once they are alone, they are left over.
func links(host fs.FS, _ Options) ([]string, error) {
	dirs, err := fs.Glob(host, "sys/class/net/*")
	if err != nil {
		return nil, err
	}
	masters, used := map[string]string{}, map[string]bool{}
	for _, dir := range dirs {
		if master, err := fs.ReadLink(host, dir+"/master"); err == nil {
			masters[dir] = path.Base(master)
			used[masters[dir]] = used[masters[dir]] || !spare(dir)
		}
	}
	var out []string
	for _, dir := range dirs {
		master := masters[dir]
		if spare(dir) && used[master] {
			continue
		}
		line := "link " + path.Base(dir)
		if master != "" {
			line += " master " + master
		}
		out = append(out, line)
	}
	return out, nil
}

func spare(dir string) bool { return strings.HasPrefix(path.Base(dir), "tap-pool-") }

func loops(host fs.FS, _ Options) ([]string, error) {
	return contents(host, "loop", "sys/block/loop*/loop/backing_file")
}

func mappings(host fs.FS, _ Options) ([]string, error) {
	return contents(host, "dm", "sys/block/dm-*/dm/name")
}

func contents(host fs.FS, kind, pattern string) ([]string, error) {
	files, err := fs.Glob(host, pattern)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, file := range files {
		b, err := fs.ReadFile(host, file)
		if err != nil {
			continue // it has gone by now
		}
		out = append(out, kind+" "+strings.TrimSpace(string(b)))
	}
	return out, nil
}

func mounts(host fs.FS, _ Options) ([]string, error) {
	return fields(host, "proc/self/mountinfo", func(f []string) string {
		if len(f) < 5 {
			return ""
		}
		return "mount " + f[4]
	})
}

func sockets(host fs.FS, o Options) ([]string, error) {
	if o.Below == "" {
		return nil, nil
	}
	return fields(host, "proc/net/unix", func(f []string) string {
		// Connected sockets carry the name too; flag 10000 marks those that listen.
		if len(f) < 8 || f[3] != "00010000" || !below(f[7], o.Below) {
			return ""
		}
		return "socket " + f[7]
	})
}

func fields(host fs.FS, file string, line func([]string) string) ([]string, error) {
	b, err := fs.ReadFile(host, file)
	if err != nil {
		return nil, err
	}
	var out []string
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		if l := line(strings.Fields(sc.Text())); l != "" {
			out = append(out, l)
		}
	}
	return out, sc.Err()
}

func cgroups(host fs.FS, _ Options) ([]string, error) { return tree(host, "cgroup", "sys/fs/cgroup") }

func directories(host fs.FS, o Options) ([]string, error) {
	if o.Below == "" {
		return nil, nil
	}
	return tree(host, "dir", strings.TrimPrefix(o.Below, "/"))
}

// tree lists the directories below one. What vanishes while it is read is not there.
func tree(host fs.FS, kind, top string) ([]string, error) {
	var out []string
	err := fs.WalkDir(host, top, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && name != top:
			out = append(out, kind+" /"+name)
		}
		return nil
	})
	return out, err
}

func below(name, dir string) bool { return strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") }
