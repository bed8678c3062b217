package firecracker

import (
	"regexp"
	"strings"

	"banger/internal/fault"
)

// A line of Firecracker's log: time, [instance:thread:LEVEL], text.
var logPattern = regexp.MustCompile(`^\S+ \[[^]]*:(ERROR|WARN|INFO|DEBUG|TRACE)\] (.*)$`)

// What Firecracker wraps its reasons in.
var wrappings = []string{
	"RunWithApiError error: ",
	"Failed to build MicroVM from Json: ",
	"Configuration for VMM from one single json failed: ",
	"Could not Start MicroVM from one single json: ",
	"System configuration error: ",
	"Internal error while starting microVM: ",
}

// refusal says why Firecracker ended before the guest ran, from the lines it logged.
func refusal(lines []string) *fault.Error {
	reason := ""
	for _, line := range lines {
		m := logPattern.FindStringSubmatch(line)
		if m != nil && m[1] == "ERROR" && !strings.HasPrefix(m[2], "Firecracker exiting") {
			reason = m[2]
		}
	}
	for _, w := range wrappings {
		reason = strings.TrimPrefix(reason, w)
	}
	e := &fault.Error{Code: fault.Internal, Msg: reason, Detail: strings.Join(lines, "\n")}
	switch {
	case reason == "":
		e.Msg = "Firecracker ended before the guest ran, without saying why"
		return e.WithHint("run `banger doctor`, and look at the logs")
	case strings.Contains(reason, "Kvm error"):
		e.Code = fault.Requirement
		return e.WithHint("KVM is not usable here: run `banger doctor`")
	case strings.Contains(reason, "ernel"): // "Kernel Loader: …", "The kernel file cannot be opened"
		e.Code = fault.Incompatible
		return e.WithHint("the image's kernel cannot boot: pull the image again, or use another; see `banger image list`")
	case strings.Contains(reason, "os error 12"):
		e.Code = fault.Exhausted
		return e.WithHint("give the VM less memory, or stop another one")
	case strings.Contains(reason, "VM config error"):
		e.Code = fault.Invalid
		return e.WithHint("choose another number of vCPUs or size of memory")
	}
	return e.WithHint("run `banger doctor`, and look at the logs")
}
