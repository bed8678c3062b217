package procnet_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/procnet"
)

func TestPorts(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	row := func(local, state string) string {
		return fmt.Sprintf("   0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 1 1\n", local, state)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("tcp", head+row("0100007F:0016", "0A")+row("0100007F:1F90", "01")+"junk\n"+row("nocolon", "0A")+row("0100007F:12345", "0A")+row("01007F:0016", "0A")+row("010000ZZ:0016", "0A")+"   0: 0100007F:0017 00000000:0000 0A\n")
	got, err := procnet.Ports(dir) // without IPv6
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[int]bool{22: true}, got); d != "" {
		t.Error(d)
	}
	write("tcp6", head+row("00000000000000000000000000000000:01BB", "0A"))
	got, err = procnet.Ports(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[int]bool{22: true, 443: true}, got); d != "" {
		t.Error(d)
	}
}

// TestWhoListens finds this very test by the kernel's own tables.
func TestWhoListens(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		want := netip.MustParseAddrPort(l.Addr().String())
		all, err := procnet.Listening("/proc/net")
		if err != nil {
			t.Fatal(err)
		}
		holders := procnet.Holders("/proc", all)
		found := false
		for _, s := range all {
			found = found || s.Address == want && holders[s.Inode].PID == os.Getpid() && holders[s.Inode].Name != ""
		}
		if !found {
			t.Errorf("%s is not among %v", want, all)
		}
	}
}

// TestWhoReceives finds a socket that is joined to no other end, and no other.
func TestWhoReceives(t *testing.T) {
	l, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	joined, err := net.Dial("udp4", l.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = joined.Close() }()
	all, err := procnet.Receiving("/proc/net")
	if err != nil {
		t.Fatal(err)
	}
	holders := procnet.Holders("/proc", all)
	var found []string
	for _, s := range all {
		if holders[s.Inode].PID == os.Getpid() {
			found = append(found, s.Address.String())
		}
	}
	if d := cmp.Diff([]string{l.LocalAddr().String()}, found); d != "" {
		t.Error(d)
	}
}
