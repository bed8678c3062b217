package sshserver

import (
	"path/filepath"
	"regexp"
	"strings"
)

// Where programs are looked for, unless the guest says otherwise.
const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
)

// environmentFiles hold what every session gets, in the order of PAM's pam_env; a later one wins. Debian and its like
// keep the locale in the second, others in the third.
var environmentFiles = []string{"etc/environment", "etc/default/locale", "etc/locale.conf"}

// maxVariable bounds a line of such a file, in bytes. One that no program could be started with is passed over.
const maxVariable = 4 << 10

var (
	// variable is a line of such a file.
	variable = regexp.MustCompile(`^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=([^\x00]*)$`)
	// variableName is what a client may send.
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// environment is that of an account's session; what the client sent comes last, and can be anything but who it is.
func (s *Server) environment(a account, sent []string) []string {
	path := userPath
	if a.uid == 0 {
		path = rootPath
	}
	env := []string{"PATH=" + path}
	for _, name := range environmentFiles {
		text, _ := readFile(filepath.Join(s.Root, name)) // most guests lack one of them
		for line := range strings.Lines(string(text)) {
			if m := variable.FindStringSubmatch(strings.TrimSpace(line)); m != nil && len(line) <= maxVariable {
				env = append(env, m[1]+"="+unquote(m[2]))
			}
		}
	}
	env = append(env, sent...)
	return append(env, "USER="+a.name, "LOGNAME="+a.name, "HOME="+a.home, "SHELL="+a.shell,
		"SSH_CONNECTION=127.0.0.1 0 127.0.0.1 22", "SSH_CLIENT=127.0.0.1 0 22") // it came by no network
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}
