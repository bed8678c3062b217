package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"banger/internal/fault"
	"banger/internal/vm"
)

// commitsAt returns how many durable commits a daemon had made when it started a VM's hypervisor.
func commitsAt(log string, id vm.ID) (int64, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return 0, err
	}
	return commitsIn(text, id)
}

// commitsIn looks that up in the daemon's log, where the newest start counts.
func commitsIn(log []byte, id vm.ID) (int64, error) {
	commits := int64(-1)
	for line := range bytes.Lines(log) {
		var l struct {
			Msg     string `json:"msg"`
			ID      vm.ID  `json:"id"`
			Commits int64  `json:"commits"`
		}
		if json.Unmarshal(line, &l) == nil && l.Msg == "hypervisor starts" && l.ID == id { // other lines have other fields
			commits = l.Commits
		}
	}
	if commits < 0 {
		return 0, fault.New(fault.NotFound, "the daemon's log tells of no hypervisor of this VM").WithOp("count commits of", string(id)).
			WithHint("the daemon must log at level info")
	}
	return commits, nil
}

// firstWord is when Firecracker wrote the first line of its log, on the host's clock in UTC.
func firstWord(log string) (time.Time, error) {
	f, err := os.Open(log)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString(' ')
	if err != nil {
		return time.Time{}, fmt.Errorf("read the first line of %s: %w", log, err)
	}
	return time.Parse("2006-01-02T15:04:05.999999999 ", line)
}
