package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"banger/internal/vm"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 wherever Firecracker runs.
const clockTick = 10 * time.Millisecond

// Use returns what p has used so far, all its threads together. It reads one file, also where there are hundreds of
// processes to look at; only with shared a second one, for which the kernel walks all of the process's memory. It
// returns ErrGone when p runs no more.
func Use(p vm.Process, shared bool) (vm.Usage, error) {
	dir := fmt.Sprintf("/proc/%d/", p.PID)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return vm.Usage{}, ErrGone
	}
	_, start, err := parseStat(stat)
	if err != nil {
		return vm.Usage{}, err
	}
	if start != p.StartTime { // the pid is another's by now
		return vm.Usage{}, ErrGone
	}
	u, err := parseUse(stat)
	if err != nil || !shared {
		return u, err
	}
	rollup, err := os.ReadFile(dir + "smaps_rollup")
	if err != nil {
		return vm.Usage{}, ErrGone
	}
	u.PSS, err = parsePSS(rollup)
	return u, err
}

// parseUse finds the times in user and kernel mode (fields 14 and 15) and the resident pages (field 24) in a stat line,
// as parseStat does.
func parseUse(line []byte) (vm.Usage, error) {
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(fields) < 22 {
		return vm.Usage{}, fmt.Errorf("not a stat line: %.80q", line)
	}
	var n [3]int64
	var errs [3]error
	for i, field := range []int{14, 15, 24} {
		n[i], errs[i] = strconv.ParseInt(string(fields[field-3]), 10, 64)
	}
	return vm.Usage{CPU: time.Duration(n[0]+n[1]) * clockTick, RSS: n[2] * int64(os.Getpagesize())}, errors.Join(errs[:]...)
}

// parsePSS finds the line "Pss: 1234 kB".
func parsePSS(rollup []byte) (int64, error) {
	for line := range bytes.Lines(rollup) {
		if text, ok := strings.CutPrefix(string(line), "Pss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("smaps_rollup has no line Pss")
}
