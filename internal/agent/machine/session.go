package machine

import (
	"os"
	"os/exec"
)

// Shield keeps this process, and those that it starts, from being ended when the guest runs out of memory.
func Shield() error { return setShield("-1000") }

func setShield(adjustment string) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte(adjustment), 0)
}

// StartSession starts a user's program without the agent's shield. That is inherited, and the program's own children would
// have it before anybody could take it from them: so the agent lays it down for as long as the start takes.
func (m *Machine) StartSession(cmd *exec.Cmd) error {
	m.starting.Lock()
	defer m.starting.Unlock()
	if err := setShield("0"); err != nil {
		return err
	}
	defer func() {
		if err := Shield(); err != nil {
			m.Log.Error("shield from the OOM killer", "error", err)
		}
	}()
	return cmd.Start()
}
