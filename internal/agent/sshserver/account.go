package sshserver

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is somebody that one can log in as.
type account struct {
	name     string
	uid, gid uint32
	groups   []uint32
	home     string
	shell    string
}

var errNoAccount = errors.New("there is no such account")

// account finds an account by name. There is a root without a line for it, in a root file system that has no accounts.
func (s *Server) account(name string) (account, error) {
	passwd, err := readFile(filepath.Join(s.Root, "etc/passwd"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return account{}, err
	}
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 7 || f[0] != name {
			continue
		}
		uid, uerr := strconv.ParseUint(f[2], 10, 32)
		gid, gerr := strconv.ParseUint(f[3], 10, 32)
		if err := errors.Join(uerr, gerr); err != nil {
			return account{}, err
		}
		a := account{name: name, uid: uint32(uid), gid: uint32(gid), home: orElse(f[5], "/"), shell: orElse(f[6], "/bin/sh")}
		a.groups = s.groups(a)
		return a, nil
	}
	if name == "root" {
		return account{name: name, home: "/root", shell: "/bin/sh"}, nil
	}
	return account{}, errNoAccount
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// groups are those that an account is in beside its own. A file that cannot be read has none.
func (s *Server) groups(a account) []uint32 {
	text, _ := readFile(filepath.Join(s.Root, "etc/group"))
	var all []uint32
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 4 || !slices.Contains(strings.Split(f[3], ","), a.name) {
			continue
		}
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			all = append(all, uint32(gid))
		}
	}
	return all
}

// credential is what a process of the account runs with; nil where that is what this one has.
func (a account) credential() *syscall.Credential {
	if int(a.uid) == os.Getuid() && int(a.gid) == os.Getgid() && len(a.groups) == 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// enters reports whether the account may enter a directory, by its mode alone.
func (a account) enters(dir string) bool {
	fi, err := os.Stat(dir)
	if err != nil || !fi.IsDir() {
		return false
	}
	is, ok := fi.Sys().(*syscall.Stat_t)
	switch mode := fi.Mode().Perm(); {
	case a.uid == 0 || !ok:
		return true
	case is.Uid == a.uid:
		return mode&0o100 != 0
	case is.Gid == a.gid || slices.Contains(a.groups, is.Gid):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// held reports whether an account is held to what its shell allows, as by git-shell or nologin: that is none of /etc/shells then.
func (s *Server) held(a account) bool {
	shells, err := readFile(filepath.Join(s.Root, "etc/shells"))
	if err != nil || a.uid == 0 {
		return false
	}
	return !slices.Contains(strings.Fields(string(shells)), a.shell)
}
