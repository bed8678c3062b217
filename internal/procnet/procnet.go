// Package procnet tells who listens on which ports, by the kernel's tables in /proc: a look, where a connection would
// show in each service's log.
package procnet

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Socket is one that somebody listens on.
type Socket struct {
	Address netip.AddrPort
	Inode   string // by which a process's descriptors name it
}

// Ports returns the TCP ports that are listened on, by the tables in dir.
func Ports(dir string) (map[int]bool, error) {
	sockets, err := Listening(dir)
	if err != nil {
		return nil, err
	}
	ports := make(map[int]bool, len(sockets))
	for _, s := range sockets {
		ports[int(s.Address.Port())] = true
	}
	return ports, nil
}

// States of a socket, as the tables have them.
const (
	stateListen   = "0A"
	stateUnjoined = "07" // of UDP: to no one other end
)

// Listening reads the tcp and tcp6 tables in dir, which is /proc/net.
func Listening(dir string) ([]Socket, error) { return read(dir, stateListen, "tcp", "tcp6") }

// Receiving reads the udp and udp6 tables: there are those that take what anybody sends.
func Receiving(dir string) ([]Socket, error) { return read(dir, stateUnjoined, "udp", "udp6") }

func read(dir, state string, tables ...string) ([]Socket, error) {
	var sockets []Socket
	for _, name := range tables {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			if s, ok := socket(sc.Text(), state); ok {
				sockets = append(sockets, s)
			}
		}
		_ = f.Close()
		if err := sc.Err(); err != nil {
			return nil, err
		}
	}
	return sockets, nil
}

// socket reads one line of such a table (Documentation/networking/proc_net_tcp.rst of the kernel).
func socket(line, state string) (Socket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != state {
		return Socket{}, false
	}
	addr, port, ok := strings.Cut(f[1], ":")
	if !ok {
		return Socket{}, false
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return Socket{}, false
	}
	a, ok := address(addr)
	return Socket{Address: netip.AddrPortFrom(a, uint16(n)), Inode: f[9]}, ok
}

// address reads one as the tables have it: words of four bytes, each as the number that it is to this processor.
func address(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	return netip.AddrFromSlice(b)
}

// Program is a process.
type Program struct {
	PID  int
	Name string
}

// Holders finds which process has each of the sockets, by the descriptors in proc, which is /proc. Of several it is one;
// who may not look into a process does not find it.
func Holders(proc string, sockets []Socket) map[string]Program {
	wanted := make(map[string]bool, len(sockets))
	for _, s := range sockets {
		wanted[s.Inode] = true
	}
	found := make(map[string]Program, len(wanted))
	processes, _ := os.ReadDir(proc)
	for _, p := range processes {
		if len(found) == len(wanted) {
			break
		}
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, p.Name())
		inodes, _ := Sockets(dir) // it may be gone
		for _, inode := range inodes {
			if _, had := found[inode]; wanted[inode] && !had {
				name, _ := os.ReadFile(filepath.Join(dir, "comm"))
				found[inode] = Program{pid, printable(strings.TrimSpace(string(name)))}
			}
		}
	}
	return found
}

// Holder says who has a TCP port of this host already.
func Holder(at netip.AddrPort) string {
	all, _ := Listening("/proc/net") // a failure leaves the process unnamed
	same := slices.DeleteFunc(all, func(s Socket) bool {
		a, b := s.Address.Addr(), at.Addr()
		return s.Address.Port() != at.Port() || a != b && !a.IsUnspecified() && !b.IsUnspecified()
	})
	programs := slices.SortedFunc(maps.Values(Holders("/proc", same)), func(a, b Program) int { return cmp.Compare(a.PID, b.PID) })
	if len(programs) == 0 {
		return "another process has that port"
	}
	return fmt.Sprintf("process %d (%s) listens there", programs[0].PID, programs[0].Name)
}

// printable is a name as it can be shown: processes choose their names themselves.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

// Sockets returns the inodes of all sockets that the process has whose directory in /proc this is.
func Sockets(dir string) ([]string, error) {
	dir = filepath.Join(dir, "fd")
	entries, err := os.ReadDir(dir)
	var inodes []string
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name())) // what is closed by now is none
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes, err
}
