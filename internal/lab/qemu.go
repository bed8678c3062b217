package lab

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// machine is everything that a QEMU command line is derived from.
type machine struct {
	kernel, initrd string
	root           string // raw ext4, never written
	disk           string // raw scratch disk; empty is none
	keepDisk       bool   // what is written to the scratch disk stays
	memory         int    // MiB
	cpus           int
	net            bool
	shares         []share
	sockets        string // directory of the ports' sockets
	systemd        bool
}

type share struct {
	tag, path string
	readOnly  bool
}

// argv is QEMU's command line. Emulated AMD SVM is what gives the lab host a KVM of its own:
// `-cpu EPYC` has the svm flag, which `-cpu max` lacks. Drives are opened as throw-away snapshots, so
// nothing that a run writes can reach the next.
func (m machine) argv() []string {
	cmdline := "console=ttyS0 quiet loglevel=3 panic=1 mitigations=off nokaslr"
	if m.systemd {
		cmdline += " lab.systemd systemd.show_status=false"
	}
	args := []string{
		"-M", "q35", "-accel", "tcg,thread=multi,tb-size=2047", "-cpu", "EPYC",
		"-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memory),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", m.kernel, "-initrd", m.initrd, "-append", cmdline,
		"-drive", "file=" + m.root + ",if=virtio,format=raw,snapshot=on,cache=unsafe,aio=threads",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
	}
	if m.disk != "" {
		view := "on"
		if m.keepDisk {
			view = "off"
		}
		args = append(args, "-drive", "file="+m.disk+",if=virtio,format=raw,cache=unsafe,discard=unmap,snapshot="+view)
	}
	for i, port := range []string{portControl, portIn, portOut, portErr} {
		id := fmt.Sprintf("port%d", i)
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=%s,path=%s", id, filepath.Join(m.sockets, port)),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", id, port))
	}
	for _, s := range m.shares {
		opt := fmt.Sprintf("local,path=%s,mount_tag=%s,security_model=none,multidevs=remap", s.path, s.tag)
		if s.readOnly {
			opt += ",readonly=on"
		}
		args = append(args, "-virtfs", opt)
	}
	if m.net {
		args = append(args, "-nic", "user,model=virtio-net-pci")
	}
	return args
}
