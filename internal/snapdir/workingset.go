package snapdir

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
	"banger/internal/snapshot"
)

// Bounds of a working set.
const (
	maxWorkingSet = 1 << 20   // bytes of its file
	gap           = 128 << 10 // what is read along, rather than to ask for two stretches
	pageStep      = 8 << 10   // pages whose state is read at once
)

// stretch is a part of the memory's file, in bytes.
type stretch struct{ from, to int64 }

// Learn notes which parts of a snapshot's memory a process that went on from it has needed so far, for Ahead. It is
// learnt once: from the first that does.
func (Dirs) Learn(dir string, pid int) error {
	path := filepath.Join(dir, snapshot.FileWorkingSet)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	set, err := touched(pid, filepath.Join(dir, snapshot.FileMemory))
	if err != nil {
		return fault.System(err, "learn the working set of", dir)
	}
	var text bytes.Buffer
	for _, s := range set {
		fmt.Fprintf(&text, "%d %d\n", s.from, s.to)
	}
	if text.Len() == 0 || text.Len() > maxWorkingSet {
		return nil // it does not share the memory, or needs it in crumbs
	}
	fresh := path + ".tmp"
	err = os.WriteFile(fresh, text.Bytes(), 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	return fault.System(err, "learn the working set of", dir)
}

// Ahead has the host read what a guest that goes on from a snapshot is going to need, where that is known. It does not wait
// for it.
func (Dirs) Ahead(dir string) error {
	set, err := readWorkingSet(filepath.Join(dir, snapshot.FileWorkingSet))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.System(err, "read ahead", dir)
	}
	f, err := os.Open(filepath.Join(dir, snapshot.FileMemory))
	if err != nil {
		return fault.System(err, "read ahead", dir)
	}
	defer f.Close()
	for _, s := range set {
		if err := unix.Fadvise(int(f.Fd()), s.from, s.to-s.from, unix.FADV_WILLNEED); err != nil {
			return fault.System(err, "read ahead", dir)
		}
	}
	return nil
}

func readWorkingSet(path string) ([]stretch, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var set []stretch
	lines := bufio.NewScanner(io.LimitReader(f, maxWorkingSet))
	for lines.Scan() {
		var s stretch
		if n, err := fmt.Sscanf(lines.Text(), "%d %d", &s.from, &s.to); n != 2 || err != nil || s.from < 0 || s.to <= s.from {
			return nil, fmt.Errorf("line %q is no stretch", lines.Text())
		}
		set = append(set, s)
	}
	return set, lines.Err()
}

// touched lists the parts of a file that a process has mapped and come to.
func touched(pid int, path string) ([]stretch, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, err
	}
	proc := "/proc/" + strconv.Itoa(pid)
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		return nil, err
	}
	states, err := os.Open(proc + "/pagemap")
	if err != nil {
		return nil, err
	}
	defer states.Close()
	var set []stretch
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var offset int64
		var rights, device string
		var inode uint64
		if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &from, &to, &rights, &offset, &device, &inode); err != nil || inode != st.Ino {
			continue
		}
		if set, err = presentIn(states, from, to, offset, set); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// presentIn adds the parts of a mapping at offset of the file that are in memory or were, and joins those that lie close
// together. pagemap has eight bytes for each page, of which the upper two bits tell: see the kernel's
// Documentation/admin-guide/mm/pagemap.rst.
func presentIn(pagemap io.ReaderAt, from, to uint64, offset int64, set []stretch) ([]stretch, error) {
	page := uint64(os.Getpagesize())
	buf := make([]byte, 8*pageStep)
	for at := from; at < to; {
		n := min(pageStep, (to-at)/page)
		if _, err := pagemap.ReadAt(buf[:8*n], int64(8*(at/page))); err != nil {
			return nil, err
		}
		for i := range n {
			if binary.NativeEndian.Uint64(buf[8*i:])>>62 == 0 {
				continue
			}
			begin := offset + int64(at-from+i*page)
			if last := len(set) - 1; last >= 0 && begin >= set[last].from && begin-set[last].to <= gap {
				set[last].to = begin + int64(page)
			} else {
				set = append(set, stretch{begin, begin + int64(page)})
			}
		}
		at += n * page
	}
	return set, nil
}
