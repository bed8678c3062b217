package vm

import "strings"

// ParseWords finds the kernel's parting message in a console line. The texts are those of Linux's
// kernel/reboot.c and kernel/panic.c; the prefix with the time stamp may be there or not. They must
// be the whole message, so that a program quoting them in a sentence is not taken for the kernel.
func ParseWords(line string) LastWords {
	text := strings.TrimSpace(line)
	if strings.HasPrefix(text, "[") {
		if _, rest, ok := strings.Cut(text, "] "); ok {
			text = strings.TrimSpace(rest)
		}
	}
	switch {
	case text == "reboot: Restarting system" || strings.HasPrefix(text, "reboot: Restarting system with command"):
		return WordsRestart
	case text == "reboot: System halted", text == "reboot: Power down",
		text == "reboot: Power off not available: System halted instead":
		return WordsHalt
	case strings.HasPrefix(text, "Kernel panic - not syncing"):
		return WordsPanic
	}
	return WordsNone
}
