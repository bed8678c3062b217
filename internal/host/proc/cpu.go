package proc

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
)

// maxCPU bounds what is read of /proc/cpuinfo: the first processor is all that is wanted.
const maxCPU = 64 << 10

// CPU names the host's processor: its model, and a digest of the features and the microcode that the kernel lists. Two
// hosts of which it says the same can go on with each other's guests.
func CPU() (string, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCPU))
	if err != nil {
		return "", err
	}
	return parseCPU(string(text))
}

func parseCPU(cpuinfo string) (string, error) {
	model, told := "", sha256.New()
	for line := range strings.Lines(cpuinfo) {
		if strings.TrimSpace(line) == "" {
			break // the next processor
		}
		key, value, _ := strings.Cut(line, ":")
		switch key, value = strings.TrimSpace(key), strings.TrimSpace(value); key {
		case "model name", "CPU part": // the second is arm64's
			model = value
			_, _ = io.WriteString(told, line)
		case "vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "Features", "CPU implementer", "CPU variant", "CPU revision":
			_, _ = io.WriteString(told, line)
		}
	}
	if model == "" {
		return "", errors.New("/proc/cpuinfo names no model")
	}
	return model + " " + hex.EncodeToString(told.Sum(nil)[:4]), nil
}
