package boot_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"banger/internal/boot"
	"banger/internal/fault"
)

func TestInitrdIsTheAgentFollowedByTheModules(t *testing.T) {
	modules := strings.Repeat("an archive ", 100)
	var b bytes.Buffer
	if err := boot.Initrd(&b, strings.NewReader("agent"), 5, strings.NewReader(modules)); err != nil {
		t.Fatal(err)
	}
	own, isSuffix := bytes.CutSuffix(b.Bytes(), []byte(modules))
	if !isSuffix {
		t.Fatal("the modules' archive is not its end")
	}
	if len(own)%512 != 0 {
		t.Errorf("the first archive has %d bytes: the kernel would not find the second", len(own))
	}
	for _, name := range []string{"dev", "proc", "sys", "run", "sysroot", "dev/console", "init"} {
		if !bytes.Contains(own, []byte("\x00"+name+"\x00")) && !bytes.Contains(own, []byte("0"+name+"\x00")) {
			t.Errorf("it has no %s", name)
		}
	}
	var again bytes.Buffer
	if err := boot.Initrd(&again, strings.NewReader("agent"), 5, strings.NewReader(modules)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("equal input gave different bytes")
	}
}

func TestInitrdIsBounded(t *testing.T) {
	agent := bytes.NewReader(make([]byte, boot.MaxInitrd-1000))
	err := boot.Initrd(io.Discard, agent, agent.Size(), strings.NewReader(strings.Repeat("x", 1001)))
	if !fault.Is(err, fault.Exhausted) {
		t.Errorf("got %v", err)
	}
	if err := boot.Initrd(io.Discard, strings.NewReader("short"), 6, strings.NewReader("")); err == nil {
		t.Error("accepted an agent that was cut short")
	}
}

func TestArgs(t *testing.T) {
	// A guest's reset ends Firecracker: by the keyboard controller on x86, by PSCI elsewhere.
	for arch, want := range map[string]bool{"amd64": true, "arm64": false} {
		args := " " + boot.Args(arch) + " "
		if got := strings.Contains(args, " reboot=k "); got != want {
			t.Errorf("%s: %q", arch, args)
		}
		for _, always := range []string{" console=ttyS0 ", " panic=1 ", " systemd.service_watchdogs=no ", " rcupdate.rcu_cpu_stall_suppress=1 "} {
			if !strings.Contains(args, always) {
				t.Errorf("%s: %q lacks%s", arch, args, always)
			}
		}
	}
}
