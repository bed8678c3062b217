package dm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const controlDevice = "/dev/mapper/control"

// quiet tells udev, whose rules read it with each event, to leave the devices alone: what is in them is a guest's, and
// nobody on the host is to look for file systems, volume groups or arrays in there. The bits are libdevmapper's.
const quiet = (0x01 | 0x02 | 0x04 | 0x08 | 0x40) << 16

// target is a stretch of a device, in sectors, and what is behind it.
type target struct {
	start, length int64
	kind, params  string
}

// request is one of device-mapper's ioctls.
type request struct {
	cmd   uintptr
	name  string // of a device, or of a kind of target
	flags uint32
	event uint32
	table []target
}

// answer is what the kernel has made of a request.
type answer struct {
	header unix.DmIoctl
	data   []byte
}

// do asks the kernel, with more room for what it has to say until that is enough.
func (r request) do() (answer, error) {
	f, err := os.OpenFile(controlDevice, os.O_RDWR, 0)
	if err != nil {
		return answer{}, err
	}
	defer f.Close()
	table := encode(r.table)
	for room := 16 << 10; ; room *= 4 {
		buf := make([]byte, max(room, unix.SizeofDmIoctl+len(table)))
		h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0])) //nolint:gosec // the header is what the buffer begins with
		*h = unix.DmIoctl{
			Version: [3]uint32{unix.DM_VERSION_MAJOR, 0, 0}, Data_size: uint32(len(buf)), Data_start: unix.SizeofDmIoctl,
			Target_count: uint32(len(r.table)), Flags: r.flags, Event_nr: r.event,
		}
		if len(r.name) >= len(h.Name) {
			return answer{}, fmt.Errorf("the name %q is too long", r.name)
		}
		copy(h.Name[:], r.name)
		copy(buf[unix.SizeofDmIoctl:], table)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), r.cmd, uintptr(unsafe.Pointer(h))) //nolint:gosec // the ioctl takes a pointer, and h has the kernel's layout
		runtime.KeepAlive(buf)
		if errno != 0 {
			return answer{}, errno
		}
		if h.Flags&unix.DM_BUFFER_FULL_FLAG == 0 {
			end := min(int(h.Data_size), len(buf)) // before the data's beginning where there is none
			return answer{*h, buf[min(int(h.Data_start), end):end]}, nil
		}
	}
}

// encode lays a table out as the kernel reads it: each target with its parameters, and how far it is to the next.
func encode(table []target) []byte {
	var out []byte
	for _, t := range table {
		length := (unix.SizeofDmTargetSpec + len(t.params) + 1 + 7) &^ 7
		spec := make([]byte, length)
		binary.NativeEndian.PutUint64(spec[0:], uint64(t.start))
		binary.NativeEndian.PutUint64(spec[8:], uint64(t.length))
		binary.NativeEndian.PutUint32(spec[20:], uint32(length))
		copy(spec[24:40], t.kind)
		copy(spec[unix.SizeofDmTargetSpec:], t.params)
		out = append(out, spec...)
	}
	return out
}

var errGarbled = errors.New("the kernel's answer cannot be read")

// targets reads a table, or the status of one. In it the way to the next target is from the answer's beginning.
func (a answer) targets() ([]target, error) {
	var out []target
	for at, n := 0, a.header.Target_count; n > 0; n-- {
		if at+unix.SizeofDmTargetSpec > len(a.data) {
			return nil, errGarbled
		}
		spec := a.data[at:]
		out = append(out, target{
			start: int64(binary.NativeEndian.Uint64(spec[0:])), length: int64(binary.NativeEndian.Uint64(spec[8:])),
			kind: text(spec[24:40]), params: text(spec[unix.SizeofDmTargetSpec:]),
		})
		at = int(binary.NativeEndian.Uint32(spec[20:]))
	}
	return out, nil
}

// names reads a list of devices.
func (a answer) names() ([]string, error) {
	const name = 12 // behind the device's number and the way to the next
	var out []string
	for at := 0; ; {
		if at == 0 && (len(a.data) < name || binary.NativeEndian.Uint64(a.data) == 0) {
			return nil, nil // there is none
		}
		if at+name > len(a.data) {
			return nil, errGarbled
		}
		entry := a.data[at:]
		out = append(out, text(entry[name:]))
		next := int(binary.NativeEndian.Uint32(entry[8:]))
		if next == 0 {
			return out, nil
		}
		at += next
	}
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
