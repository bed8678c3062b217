package imagebuild

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"banger/internal/fault"
	"banger/internal/image"
)

// inits are where a root may keep its init, in the order of preference.
func inits() []string {
	return []string{
		"/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/bin/init", "/init",
		"/sbin/openrc-init", "/sbin/runit-init", "/sbin/runit", "/bin/busybox",
	}
}

// findInit returns the init of a tree.
func findInit(root *os.Root) (string, error) {
	for _, p := range inits() {
		if st, err := statIn(root, p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fault.New(fault.Invalid, "it holds no init").
		WithHint("one of these must be an executable file: %s", strings.Join(inits(), ", "))
}

// statIn follows symbolic links as the guest would, from the tree's own root: os.Root refuses absolute
// targets, since it takes them for the host's.
func statIn(root *os.Root, name string) (fs.FileInfo, error) {
	name, err := resolveIn(root, name)
	if err != nil {
		return nil, err
	}
	return root.Lstat(name)
}

// maxLinks is what the kernel allows too.
const maxLinks = 40

func resolveIn(root *os.Root, name string) (string, error) {
	rest := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	at := "."
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		st, err := root.Lstat(next)
		if err != nil {
			return "", err
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many symbolic links", name)
		}
		target, err := root.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = "."
		}
		rest = append(strings.Split(strings.Trim(path.Clean(target), "/"), "/"), rest...)
	}
	return at, nil
}

// services are what a tree's init starts and readiness waits for. Only what is known to be enabled
// counts: waiting for what never comes would make every boot fail.
func services(root *os.Root) []image.Service {
	if _, err := root.Lstat("etc/systemd/system/multi-user.target.wants/ssh.service"); err == nil {
		return []image.Service{{Name: "ssh", Port: 22}}
	}
	return nil
}

// prettyName is PRETTY_NAME of os-release, or "".
func prettyName(root *os.Root) string {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		place, err := resolveIn(root, name)
		if err != nil {
			continue
		}
		f, err := root.Open(place)
		if err != nil {
			continue
		}
		defer f.Close()
		for sc := bufio.NewScanner(io.LimitReader(f, 64<<10)); sc.Scan(); {
			if v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME="); ok {
				return printable(strings.Trim(v, `"'`), 100)
			}
		}
	}
	return ""
}

func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), limit)]
}

// dpkg reads the installed packages of a tree, and a digest over them. A tree without dpkg has none.
func dpkg(root *os.Root) ([]image.Package, string, error) {
	f, err := root.Open("var/lib/dpkg/status")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	var list []image.Package
	var p image.Package
	installed := false
	h := sha256.New()
	end := func() {
		if p.Name != "" && installed {
			list = append(list, p)
			_, _ = fmt.Fprintf(h, "%s %s %s\n", p.Name, p.Version, p.Arch) // a hash never fails
		}
		p, installed = image.Package{}, false
	}
	sc := bufio.NewScanner(io.LimitReader(f, 64<<20))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ": ")
		switch key {
		case "":
			end()
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Architecture":
			p.Arch = value
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		}
	}
	end()
	return list, hex.EncodeToString(h.Sum(nil)), sc.Err()
}
