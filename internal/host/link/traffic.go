package link

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"banger/internal/vm"
)

// Traffic returns what has gone through each network device, by its name: one file, however many there are.
func Traffic() (map[string]vm.Traffic, error) {
	f, err := os.Open("/proc/thread-self/net/dev")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseTraffic(f)
}

// parseTraffic reads such a file: after two lines of heading, one for each device, "name: " and 16 columns, of which the
// first two are bytes and packets received, the ninth and tenth those sent.
func parseTraffic(r io.Reader) (map[string]vm.Traffic, error) {
	all := map[string]vm.Traffic{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		name, columns, ok := strings.Cut(sc.Text(), ":")
		if !ok { // the heading
			continue
		}
		fields := strings.Fields(columns)
		if len(fields) < 16 {
			return nil, fmt.Errorf("read /proc/net/dev: %.80q", sc.Text())
		}
		var t vm.Traffic
		for i, to := range map[int]*int64{0: &t.RxBytes, 1: &t.RxPackets, 8: &t.TxBytes, 9: &t.TxPackets} {
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read /proc/net/dev: %w", err)
			}
			*to = n
		}
		all[strings.TrimSpace(name)] = t
	}
	return all, sc.Err()
}
