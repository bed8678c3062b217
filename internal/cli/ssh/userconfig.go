package ssh

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"banger/internal/fault"
)

// mark ends the line of ours in a user's ssh_config, and says what was made to hold it.
const mark = "#banger:ssh-config"

// UserConfig is a user's ssh_config, ~/.ssh/config, with or without the line that includes our file.
type UserConfig struct {
	Path string // where links lead
	text []byte // nil where there is no file
	mode fs.FileMode
	made string // what an install has to make: a "file", or a "directory" too
}

// ReadUserConfig reads the ssh_config below a home directory. Links are followed, as dotfiles are often kept elsewhere, but not
// to what belongs to somebody else.
func ReadUserConfig(home string) (UserConfig, error) {
	path := filepath.Join(home, ".ssh", "config")
	refuse := func(code fault.Code, hint, format string, args ...any) (UserConfig, error) {
		return UserConfig{}, fault.New(code, format, args...).WithOp("read", path).WithHint("%s", hint)
	}
	u := UserConfig{Path: path, mode: 0o600, made: "file"}
	nearest := home
	for _, p := range []string{filepath.Dir(path), path} {
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			if p != path {
				u.made = "directory"
			}
			break
		}
		nearest = p
	}
	real, err := filepath.EvalSymlinks(nearest)
	if err != nil {
		return refuse(fault.Invalid, "put in place what the link leads to, or remove it", "%w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return refuse(fault.Invalid, "check who may read it", "%w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return refuse(fault.Forbidden, "run it as the user whose file it is, without sudo, or see `banger ssh-config print`",
			"%s belongs to another user", real)
	}
	if nearest != path {
		return u, nil
	}
	if !info.Mode().IsRegular() {
		return refuse(fault.Invalid, "see what is there", "it is no regular file")
	}
	u.Path, u.mode, u.made = real, info.Mode().Perm(), ""
	if u.text, err = os.ReadFile(real); err != nil {
		return refuse(fault.Forbidden, "check who may read it", "%w", err)
	}
	return u, nil
}

// own is our line in a user's ssh_config.
func own() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^Include .*` + mark + `(?::(file|directory))?$\n?`)
}

// Including is the user's ssh_config with a line that includes the file at path: first of all, since of what is said twice ssh
// takes the first, and no Host may stand before it. Where the user has moved it, it stays.
func (u UserConfig) Including(path string) (UserConfig, error) {
	if err := checkPath(path); err != nil {
		return u, err
	}
	// What means something to glob, or to the versions that expand it, is matched by any character.
	line := `Include "` + strings.Map(func(r rune) rune {
		if strings.ContainsRune("*?[]%$", r) {
			return '?'
		}
		return r
	}, path) + `" ` + mark
	if at := own().FindSubmatchIndex(u.text); at != nil {
		old := string(u.text[at[0]:at[1]])
		_, suffix, _ := strings.Cut(old, mark)
		u.text = []byte(string(u.text[:at[0]]) + line + suffix + string(u.text[at[1]:]))
		return u, nil
	}
	if u.made != "" {
		line += ":" + u.made
	}
	u.text = []byte(line + "\n" + string(u.text))
	return u, nil
}

// Without is the user's ssh_config without that line, and without a file where there was none for it to be put in.
func (u UserConfig) Without() UserConfig {
	at := own().FindSubmatchIndex(u.text)
	if at == nil {
		return u
	}
	made := ""
	if at[2] >= 0 {
		made = string(u.text[at[2]:at[3]])
	}
	u.text = append(bytes.Clone(u.text[:at[0]]), u.text[at[1]:]...)
	if len(u.text) == 0 && made != "" {
		u.text, u.made = nil, made
	}
	return u
}

// Same reports whether there is nothing to write.
func (u UserConfig) Same(other UserConfig) bool {
	return (u.text == nil) == (other.text == nil) && bytes.Equal(u.text, other.text)
}

// Write makes it so.
func (u UserConfig) Write() error {
	err := u.write()
	if err != nil {
		return fault.New(fault.Forbidden, "%w", err).WithOp("write", u.Path).
			WithHint("check who may write it; where something else writes it for you, have that add what `banger ssh-config print` prints")
	}
	return nil
}

func (u UserConfig) write() error {
	if u.text != nil {
		return replace(u.Path, u.text, u.mode)
	}
	if err := os.Remove(u.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if u.made == "directory" {
		_ = os.Remove(filepath.Dir(u.Path)) // ssh or the user may have put something in it
	}
	return nil
}
