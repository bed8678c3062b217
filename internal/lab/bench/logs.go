package bench

import (
	"bytes"
	"encoding/json"
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

// lastStart is when Firecracker wrote the first line of its log of the newest start, on the host's clock in UTC.
func lastStart(log string) (at time.Time, err error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return at, err
	}
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, []byte("Running Firecracker")) {
			continue
		}
		word, _, _ := bytes.Cut(line, []byte(" "))
		if at, err = time.Parse("2006-01-02T15:04:05.999999999", string(word)); err != nil {
			return at, err
		}
	}
	if at.IsZero() {
		err = fault.New(fault.NotFound, "it tells of no start").WithOp("read", log)
	}
	return at, err
}
