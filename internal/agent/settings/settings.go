// Package settings writes a guest config into a root file system. That tree belongs to the guest,
// which may have left links, pipes or nothing at all in the places we write to.
package settings

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"banger/internal/agentproto"
)

// Write makes the root file system that of one particular VM. It goes on after a failure: a guest
// that lacks one file is more use than one that does not boot. All failures are returned.
func Write(root *os.Root, cfg agentproto.GuestConfig) error {
	var errs []error
	try := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if cfg.Hostname != "" {
		try(Hostname(root, cfg.Hostname))
	}
	if cfg.MachineID != "" {
		try(put(root, "etc/machine-id", cfg.MachineID+"\n", 0o444))
	}
	if cfg.Network != nil && len(cfg.Network.DNS) > 0 {
		try(resolver(root, cfg.Network.DNS, cfg.Network.Search))
	}
	if cfg.Timezone != "" {
		try(once(root, "timezone", cfg.Timezone, timezone))
	}
	if cfg.Locale != "" {
		try(once(root, "locale", cfg.Locale, locale))
	}
	for _, f := range cfg.Files {
		try(put(root, strings.TrimPrefix(path.Clean("/"+f.Path), "/"), string(f.Content), fs.FileMode(f.Mode).Perm()))
	}
	try(authorizedKeys(root, cfg.AuthorizedKeys))
	return errors.Join(errs...)
}

// Hostname writes the machine's name where a boot and a look-up of it find it.
func Hostname(root *os.Root, name string) error {
	return errors.Join(
		put(root, "etc/hostname", name+"\n", 0o644),
		edit(root, "etc/hosts", 0o644, func(old string) string {
			if old == "" {
				old = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
			}
			return replaceBlock(old, "127.0.1.1\t"+name+"\n")
		}))
}

// Secret writes a file that only root can read, into a directory that only root can enter.
func Secret(root *os.Root, name, content string) error {
	dir := path.Dir(name)
	if err := mkdir(root, dir, 0o700); err != nil {
		return err
	}
	if err := root.Chmod(dir, 0o700); err != nil {
		return err
	}
	return put(root, name, content, 0o600)
}

// authorizedKeys lets these keys in, and those no more that it let in before.
func authorizedKeys(root *os.Root, keys []string) error {
	const file = "root/.ssh/authorized_keys"
	if len(keys) == 0 {
		if _, err := root.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return edit(root, file, 0o600, removeBlock)
	}
	if err := mkdir(root, "root/.ssh", 0o700); err != nil {
		return err
	}
	return edit(root, file, 0o600, func(old string) string {
		return replaceBlock(old, strings.Join(keys, "\n")+"\n")
	})
}

// The lines around what is ours in a file that is also the user's.
const (
	blockBegin = "# banger: begin (rewritten at every boot)"
	blockEnd   = "# banger: end"
)

// replaceBlock puts body where our block was, or at the end; all other lines stay.
func replaceBlock(old, body string) string {
	block := blockBegin + "\n" + body + blockEnd + "\n"
	before, rest, found := cutLine(old, blockBegin)
	if !found {
		if old != "" && !strings.HasSuffix(old, "\n") {
			old += "\n"
		}
		return old + block
	}
	return before + block + afterBlock(rest)
}

// removeBlock takes our block away; all other lines stay.
func removeBlock(old string) string {
	before, rest, found := cutLine(old, blockBegin)
	if !found {
		return old
	}
	return before + afterBlock(rest)
}

// afterBlock is what follows our block, of which the first line is gone already. Without its last line its extent is
// unknown: then only the first is ours.
func afterBlock(rest string) string {
	if _, after, ok := cutLine(rest, blockEnd); ok {
		return after
	}
	return rest
}

// cutLine splits text around its first line that equals line.
func cutLine(text, line string) (before, after string, found bool) {
	for pos := 0; pos < len(text); {
		next := len(text)
		if i := strings.IndexByte(text[pos:], '\n'); i >= 0 {
			next = pos + i + 1
		}
		if strings.TrimRight(text[pos:next], "\r\n") == line {
			return text[:pos], text[next:], true
		}
		pos = next
	}
	return text, "", false
}
