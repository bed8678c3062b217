package vm

import (
	"slices"
	"strings"
)

// Ending is the evidence about how a guest went down.
type Ending struct {
	Farewell  bool      // the guest's init had begun to end every process
	Exited    bool      // the hypervisor ended by itself
	Halted    bool      // the vCPUs are silent and the agent does not answer
	LastWords LastWords // what the guest's kernel printed last
	Asked     State     // what we asked the guest to become: Stopped, or "" when it was not us
}

// LastWords is the kernel's parting message on the console.
type LastWords string

// The messages that matter.
const (
	WordsNone    LastWords = ""
	WordsRestart LastWords = "restart"
	WordsHalt    LastWords = "halt"
	WordsPanic   LastWords = "panic"
)

// Verdict is what became of a guest.
type Verdict struct {
	State   State  // Stopped or Crashed
	Restart bool   // the guest meant to reboot: start it again
	Reason  string // for people; empty after an ordinary stop
}

// Judge tells an orderly end from a crash. On x86 a reset ends Firecracker and a power-off only
// silences the vCPUs, so the two are told apart by what happened, not by what the guest claims:
// a hostile guest can at most choose its own fate.
func (e Ending) Judge() Verdict {
	switch {
	case e.LastWords == WordsPanic:
		return Verdict{State: Crashed, Reason: "the guest's kernel panicked"}
	case e.Asked == Stopped && (e.Exited || e.Halted):
		return Verdict{State: Stopped}
	case e.Halted:
		return Verdict{State: Stopped, Reason: "powered off from inside"}
	case e.Exited && (e.Farewell || e.LastWords == WordsRestart):
		return Verdict{State: Stopped, Restart: true, Reason: "rebooted from inside"}
	case e.Exited:
		return Verdict{State: Crashed, Reason: "the hypervisor ended without a farewell from the guest"}
	default:
		return Verdict{State: Crashed, Reason: "the guest was lost"}
	}
}

// firecrackerBegins is in the first line of Firecracker's log of each run.
const firecrackerBegins = "Running Firecracker v"

// maxQuote bounds what of a log's line goes into a reason, in bytes.
const maxQuote = 160

// Crash is why a VM crashed, with what its logs' last lines, safe to show, tell of it: the kernel's panic, what
// Firecracker calls an error, or else what the guest said last. The logs hold earlier runs too: that this one ended in a
// panic the caller must know.
func Crash(reason string, panicked bool, console, firecracker string) string {
	said := strings.Split(console, "\n")
	for _, line := range slices.Backward(said) {
		if panicked && ParseWords(line) == WordsPanic {
			return reason + ": " + quote(line)
		}
	}
	for _, line := range slices.Backward(strings.Split(firecracker, "\n")) {
		if strings.Contains(line, firecrackerBegins) {
			break // what is before is of another run
		}
		if strings.Contains(line, ":ERROR]") || strings.Contains(line, "panicked at") {
			return reason + "; Firecracker said: " + quote(line)
		}
	}
	for _, line := range slices.Backward(said) {
		if last := quote(line); last != "" && !strings.Contains(line, agentNotes) {
			return reason + "; the guest's last line: " + last
		}
	}
	return reason
}

// agentNotes marks what the agent notes as a matter of course, which says nothing about an end.
const agentNotes = "level=INFO "

// quote is a line of a log without its time stamp, bounded.
func quote(line string) string {
	line = strings.TrimSpace(line)
	if _, rest, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(line, "[") {
		line = strings.TrimSpace(rest)
	}
	if len(line) > maxQuote {
		line = strings.ToValidUTF8(line[:maxQuote], "") + " …"
	}
	return line
}
