package tinyroot_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"path"
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/lab/tinyroot"
)

// program is the header of an ELF program; with an interpreter it is a dynamically linked one.
func program(t *testing.T, interpreter bool) []byte {
	t.Helper()
	var b bytes.Buffer
	kind := uint32(1) // PT_LOAD
	if interpreter {
		kind = 3 // PT_INTERP
	}
	for _, part := range []any{
		[]byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		uint16(2), uint16(62), uint32(1), uint64(0), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0),
		kind, uint32(5),
		[6]uint64{},
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestWrite(t *testing.T) {
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := tinyroot.Write(w, program(t, false)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of one busybox differ")
	}
	seen := map[string]*tar.Header{}
	for r := tar.NewReader(&first); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if parent := path.Dir(name); parent != "." && seen[parent] == nil {
			t.Errorf("%s comes before its directory", name)
		}
		if seen[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %s; want root's and the epoch", name, h.Uid, h.Gid, h.ModTime)
		}
		seen[name] = h
	}
	for name, h := range seen {
		if h.Typeflag == tar.TypeSymlink && seen[path.Join(path.Dir(name), h.Linkname)] == nil {
			t.Errorf("%s points to %s, which is not there", name, h.Linkname)
		}
	}
	for _, name := range []string{"sbin/init", "bin/sh", "proc", "sys", "dev", "run", "tmp", "root", "etc/passwd", "etc/inittab"} {
		if seen[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestRefusesOtherBusyboxes(t *testing.T) {
	for name, c := range map[string]struct {
		busybox []byte
		want    string
	}{
		"script":  {[]byte("#!/bin/sh\n"), "use busybox: it is not an ELF program"},
		"dynamic": {program(t, true), "use busybox: it is dynamically linked, and the tree holds no libraries"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tinyroot.Write(io.Discard, c.busybox)
			if !fault.Is(err, fault.Requirement) || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
