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

// ListeningPorts reads the TCP ports that are listened on from the tcp and tcp6 tables in dir, which
// is /proc/net: a look, where a connection would show in each service's log.
func ListeningPorts(dir string) (map[int]bool, error) {
	ports := make(map[int]bool)
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
			if port, ok := listening(sc.Text()); ok {
				ports[port] = true
			}
		}
		_ = f.Close()
		if err := sc.Err(); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// listening reads one line of such a table (Documentation/networking/proc_net_tcp.rst of the kernel).
func listening(line string) (port int, ok bool) {
	const stateListen = "0A"
	f := strings.Fields(line)
	if len(f) < 4 || f[3] != stateListen {
		return 0, false
	}
	_, hex, ok := strings.Cut(f[1], ":")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 16)
	return int(n), err == nil
}
