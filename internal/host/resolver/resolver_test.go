package resolver

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/fault"
)

func TestWhetherProgramsAskResolved(t *testing.T) {
	for _, c := range []struct {
		conf, nss string
		want      bool
	}{
		{"", "", false},
		{"nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "", true},
		{"nameserver 192.0.2.1\nnameserver 127.0.0.53\n", "hosts: files dns\n", false},
		{"nameserver 192.0.2.1\n", "passwd: files\nhosts:\tfiles resolve [!UNAVAIL=return] dns\n", true},
		{"# nameserver 127.0.0.53\n", "#hosts: resolve\n", false},
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"resolv.conf": c.conf, "nsswitch.conf": c.nss} {
			if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := (Host{Root: root}).asksResolved(); got != c.want {
			t.Errorf("%q, %q: got %v", c.conf, c.nss, got)
		}
	}
}

func TestWhoHasTheDomain(t *testing.T) {
	name := func(index int) string { return map[int]string{7: "tun0"}[index] }
	for _, c := range []struct {
		domains []domain
		want    string
	}{
		{nil, ""},
		{[]domain{{3, "vm", true}, {0, "example.vm", false}, {7, "lan", true}, {7, ".", true}}, ""},
		{[]domain{{0, "vm", false}}, "the servers of its own configuration"},
		{[]domain{{3, "vm", true}, {7, "VM.", true}}, "the servers of the link tun0"},
		{[]domain{{7, "vm", false}}, "the servers of the link tun0"},
	} {
		if got := holder(c.domains, map[int]string{3: "banger-ab12"}, name); got != c.want {
			t.Errorf("%v: got %q, want %q", c.domains, got, c.want)
		}
	}
}

func TestDnsmasqsConfiguration(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"server=192.0.2.1\n":           "",
		"server=/lan/192.0.2.1\n":      "",
		"server=/a.vm/192.0.2.1\n":     "",
		"#server=/vm/192.0.2.1\n":      "",
		"x\n server=/lan/VM/1.2.3.4\n": "server=/lan/VM/1.2.3.4",
		"local=/vm/\n":                 "local=/vm/",
		"address=/.vm/10.0.0.1":        "address=/.vm/10.0.0.1",
	} {
		if got := ruling(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestNetworkManagersFiles(t *testing.T) {
	h := Host{Root: t.TempDir(), Tag: "ab12"}
	server := netip.MustParseAddrPort("127.0.0.1:42070")
	if there, err := h.dirIsThere(); err != nil || there {
		t.Errorf("its directory: %v, %v", there, err)
	}
	if err := h.routedByFiles(); err != nil {
		t.Error(err)
	}
	dir := filepath.Dir(h.file())
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if there, err := h.dirIsThere(); err != nil || !there {
		t.Errorf("its directory: %v, %v", there, err)
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(h.file(), rule(server)+"\n") // of its own
	if err := h.routedByFiles(); err != nil {
		t.Error(err)
	}
	other := filepath.Join(dir, "other.conf")
	write(other, "server=/vm/192.0.2.1\n")
	err := h.routedByFiles()
	if !fault.Is(err, fault.InUse) || !strings.Contains(err.Error(), other) || !strings.Contains(err.Error(), "server=/vm/192.0.2.1") || fault.From(err).Hint == "" {
		t.Errorf("another has it: %v", err)
	}

	// It goes, and its directory where that was ours and nobody else uses it.
	if err := h.removeFile(t.Context(), nil, Wiring{Kind: NetworkManager, MadeDir: true}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(h.file()); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	write(h.file(), "x")
	for range 2 {
		if err := h.removeFile(t.Context(), nil, Wiring{Kind: NetworkManager, MadeDir: true}); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its directory is there: %v", err)
	}
}

func TestSteps(t *testing.T) {
	h := Host{Root: "/", Tag: "ab12"}
	server := netip.MustParseAddrPort("[::1]:42069")
	for kind, want := range map[Kind]string{
		Resolved:       "systemd-resolved asks [::1]:42069 for names below vm, while a bridge banger-ab12 is there; systemd-resolved forgets what it was told of bridges banger-ab12",
		NetworkManager: "write /etc/NetworkManager/dnsmasq.d/banger-ab12.conf: server=/vm/::1#42069; NetworkManager starts its dnsmasq anew; remove /etc/NetworkManager/dnsmasq.d/banger-ab12.conf and its directory; NetworkManager starts its dnsmasq anew",
	} {
		w := Wiring{Kind: kind, MadeDir: true}
		if got := strings.Join(append(h.Steps(w, server), h.UndoSteps(w)...), "; "); got != want {
			t.Errorf("got %s", got)
		}
	}
	if err := h.missing(server); !fault.Is(err, fault.Requirement) || !strings.Contains(fault.From(err).Hint, "server=/vm/::1#42069") {
		t.Errorf("%v", err)
	}
}
