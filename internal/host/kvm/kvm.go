// Package kvm tells whether this host can run virtual machines. That /dev/kvm opens does not: a
// nested host may offer the device without the processor's help behind it.
package kvm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

const (
	device     = "/dev/kvm"
	apiVersion = 12 // the only one since Linux 2.6.22
)

// Requests of the KVM device and of a VM, from linux/kvm.h; all take an integer.
const (
	getAPIVersion = 0xae00
	createVM      = 0xae01
	createVCPU    = 0xae41
)

// Status is what was found, as far as the check came.
type Status struct {
	APIVersion int    `json:"api_version"`         // 12
	Extension  string `json:"extension,omitempty"` // the processor's flag, "vmx" or "svm"; empty on arm64
}

// Check finds out whether KVM is truly usable: the processor has virtualization, the device opens and
// speaks the known API, and it makes a VM with a vCPU. What is missing is fault.Requirement.
func Check() (Status, error) {
	var s Status
	lacks := func(hint, format string, args ...any) (Status, error) {
		return s, fault.New(fault.Requirement, format, args...).WithOp("use", device).WithHint("%s", hint)
	}
	kvm, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return lacks("load the module kvm_intel or kvm_amd, and enable virtualization in the firmware, or nesting on the machine underneath", "the host has no KVM")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return lacks("run the daemon as root; in a container, pass the device in", "it may not be opened")
	case err != nil:
		return lacks("look at `dmesg`", "%w", err)
	}
	defer kvm.Close()

	s.APIVersion, err = unix.IoctlRetInt(int(kvm.Fd()), getAPIVersion)
	if err != nil {
		return lacks("another driver has this device's name: look at `ls -l /dev/kvm`", "it does not answer as KVM: %w", err)
	}
	if s.APIVersion != apiVersion {
		return lacks("update the host's kernel", "it speaks version %d of the API, not %d", s.APIVersion, apiVersion)
	}
	if runtime.GOARCH == "amd64" {
		info, err := os.ReadFile("/proc/cpuinfo")
		if err != nil {
			return s, fmt.Errorf("read CPU flags: %w", err)
		}
		if s.Extension = extension(info); s.Extension == "" {
			return lacks("enable virtualization in the firmware, or nesting on the machine underneath; without, `make demo` shows banger in an emulated host",
				"the processor offers no virtualization: neither vmx nor svm is among its flags")
		}
	}
	if err := tryVM(int(kvm.Fd())); err != nil {
		return lacks("stop other hypervisors on this host, and look at `dmesg`", "%w", err)
	}
	return s, nil
}

// extension finds the flag of hardware virtualization in /proc/cpuinfo.
func extension(cpuinfo []byte) string {
	for line := range bytes.Lines(cpuinfo) {
		name, flags, ok := strings.Cut(string(line), ":")
		if !ok || strings.TrimSpace(name) != "flags" {
			continue
		}
		for _, flag := range strings.Fields(flags) {
			if slices.Contains([]string{"vmx", "svm"}, flag) {
				return flag
			}
		}
		return "" // the processors are alike
	}
	return ""
}

// tryVM makes a VM with one vCPU, and lets go of it.
func tryVM(kvm int) error {
	vm, err := ioctlFD(kvm, createVM)
	if err != nil {
		return fmt.Errorf("no VM can be made: %w", err)
	}
	defer func() { _ = unix.Close(vm) }()
	vcpu, err := ioctlFD(vm, createVCPU)
	if err != nil {
		return fmt.Errorf("no vCPU can be made: %w", err)
	}
	return unix.Close(vcpu)
}

// ioctlFD sends a request with the argument 0: machine type 0, vCPU number 0. Making a VM can be
// interrupted by a signal, such as those that the Go runtime sends itself.
func ioctlFD(fd int, request uint) (int, error) {
	for {
		made, err := unix.IoctlRetInt(fd, request)
		if !errors.Is(err, unix.EINTR) {
			return made, err
		}
	}
}
