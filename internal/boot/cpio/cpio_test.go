package cpio_test

import (
	"bytes"
	"strings"
	"testing"

	"banger/internal/boot/cpio"
)

func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	c := cpio.NewWriter(&b)
	for _, err := range []error{
		c.File("/lib/modules/1.ko", 0o644, 5, strings.NewReader("hello")),
		c.Dir("lib/modules"),
		c.Symlink("sbin", "usr/sbin"),
		c.CharDevice("dev/console", 0o600, 5, 1),
		c.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	got := archive(t)
	if !bytes.Equal(got, archive(t)) {
		t.Error("equal input gave different bytes")
	}
	var names []string
	for rest := got; ; {
		if string(rest[:6]) != "070701" {
			t.Fatalf("no header at %q", rest[:6])
		}
		size, length := hex(t, rest[54:62]), hex(t, rest[94:102])
		name := string(rest[110 : 110+length-1])
		names = append(names, name)
		if name == "TRAILER!!!" {
			break
		}
		rest = rest[(110+length+3)/4*4:]
		rest = rest[(size+3)/4*4:]
	}
	if want := "lib lib/modules lib/modules/1.ko sbin dev dev/console TRAILER!!!"; strings.Join(names, " ") != want {
		t.Errorf("entries are %v, want %s", names, want)
	}
	if len(got)%512 != 0 {
		t.Errorf("%d bytes are no whole number of blocks", len(got))
	}
}

func TestAShortFileIsAnError(t *testing.T) {
	c := cpio.NewWriter(&bytes.Buffer{})
	if err := c.File("init", 0o755, 10, strings.NewReader("short")); err == nil || !strings.Contains(err.Error(), "5 bytes instead of 10") {
		t.Errorf("got %v", err)
	}
}

func hex(t *testing.T, b []byte) int {
	t.Helper()
	n := 0
	for _, c := range b {
		n = n*16 + strings.IndexByte("0123456789abcdef", c)
	}
	return n
}
