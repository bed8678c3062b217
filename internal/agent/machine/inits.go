package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// AwaitsEnd reports whether what ends all processes now waits until they have heeded SIGTERM: what
// systemd's PID 1 turns into for a minute and a half, System V's script for ten seconds.
func AwaitsEnd() bool {
	return line("/proc/1/comm") == "systemd-shutdow" || runsScript("sendsigs") // the kernel keeps 15 bytes of a name
}

// runsScript reports whether some process runs a script of this name, or by a link whose name ends so:
// in a runlevel's directory it is K01sendsigs.
func runsScript(name string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		cmdline, err := os.ReadFile(filepath.Clean(f))
		if err != nil {
			continue // it has ended
		}
		for arg := range bytes.SplitSeq(cmdline, []byte{0}) {
			if bytes.HasSuffix(arg, []byte(name)) {
				return true
			}
		}
	}
	return false
}

// Spare asks System V's script to leave a process alone while it ends the others. Other inits kill
// without waiting, or heed a process's name (see the agent's main package).
func Spare(pid int) error {
	if _, err := os.Stat("/etc/init.d/sendsigs"); err != nil {
		return nil //nolint:nilerr // a guest without that script needs nothing
	}
	const dir = "/run/sendsigs.omit.d"
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as the script makes it
		return err
	}
	return os.WriteFile(dir+"/banger-agent", []byte(strconv.Itoa(pid)+"\n"), 0o600)
}
