package agent

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Socket is a TCP socket that somebody listens on.
type Socket struct {
	Port  int
	Inode string // by which a process's descriptors name it
}

// ListeningPorts returns the TCP ports that are listened on, by the tables in dir.
func ListeningPorts(dir string) (map[int]bool, error) {
	sockets, err := ListeningSockets(dir)
	if err != nil {
		return nil, err
	}
	ports := make(map[int]bool, len(sockets))
	for _, s := range sockets {
		ports[s.Port] = true
	}
	return ports, nil
}

// ListeningSockets reads the tcp and tcp6 tables in dir, which is /proc/net: a look, where a connection would show in
// each service's log.
func ListeningSockets(dir string) ([]Socket, error) {
	var sockets []Socket
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			if s, ok := listening(sc.Text()); ok {
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

// listening reads one line of such a table (Documentation/networking/proc_net_tcp.rst of the kernel).
func listening(line string) (Socket, bool) {
	const stateListen = "0A"
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != stateListen {
		return Socket{}, false
	}
	_, hex, ok := strings.Cut(f[1], ":")
	if !ok {
		return Socket{}, false
	}
	n, err := strconv.ParseUint(hex, 16, 16)
	return Socket{Port: int(n), Inode: f[9]}, err == nil
}
