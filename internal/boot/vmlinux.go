// Package boot turns what a distribution ships into what Firecracker boots: an ELF kernel out of a
// vmlinuz, an initrd of the agent and the few modules which that kernel needs, the kernel's command
// line, and a look at its configuration for what would be missing.
package boot

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/xi2/xz"

	"banger/internal/fault"
)

// Offsets into an x86 boot image's setup header, from Linux's Documentation/arch/x86/boot.rst.
const (
	offSetupSects    = 0x1f1
	offHeaderMagic   = 0x202 // "HdrS"
	offVersion       = 0x206
	offPayload       = 0x248 // from protocol 2.08 on, counted from the protected-mode code
	offPayloadLength = 0x24c
	minVersion       = 0x208
	sector           = 512
)

// maxKernel bounds an unpacked kernel; Debian's has about 60 MiB.
const maxKernel = 512 << 20

// Vmlinux returns the ELF kernel inside an x86 vmlinuz. What is an ELF kernel already comes back as
// it is. The payload may be packed by lz4 (legacy frames), zstd, gzip or xz.
func Vmlinux(vmlinuz []byte) ([]byte, error) {
	if bytes.HasPrefix(vmlinuz, []byte(elf.ELFMAG)) {
		return vmlinuz, checkELF(vmlinuz)
	}
	payload, err := payload(vmlinuz)
	if err != nil {
		return nil, err
	}
	kernel, err := unpack(payload)
	if err != nil {
		return nil, refuse("its payload cannot be unpacked: %w", err)
	}
	return kernel, checkELF(kernel)
}

func refuse(format string, args ...any) error {
	return fault.New(fault.Incompatible, format, args...).WithOp("read kernel", "").
		WithHint("give an x86_64 vmlinuz or an ELF vmlinux, as distributions install in /boot")
}

// payload cuts the packed kernel out of the boot image.
func payload(img []byte) ([]byte, error) {
	if len(img) < offPayloadLength+4 || string(img[offHeaderMagic:offHeaderMagic+4]) != "HdrS" {
		return nil, refuse("it is neither an ELF file nor an x86 boot image")
	}
	if v := binary.LittleEndian.Uint16(img[offVersion:]); v < minVersion {
		return nil, refuse("its boot protocol %#x is older than %#x", v, minVersion)
	}
	setup := int64(img[offSetupSects])
	if setup == 0 {
		setup = 4 // as the protocol says, for history's sake
	}
	from := (setup+1)*sector + int64(binary.LittleEndian.Uint32(img[offPayload:]))
	length := int64(binary.LittleEndian.Uint32(img[offPayloadLength:]))
	if length < 8 || from+length > int64(len(img)) {
		return nil, refuse("its payload of %d bytes at %d does not fit in its %d bytes", length, from, len(img))
	}
	return img[from : from+length], nil
}

// unpack tells the packer by its magic number. The build appends the unpacked size to all formats
// but gzip, which has it anyway.
func unpack(p []byte) ([]byte, error) {
	size := binary.LittleEndian.Uint32(p[len(p)-4:])
	if size > maxKernel {
		return nil, fmt.Errorf("it claims %d bytes", size)
	}
	trailer := p[:len(p)-4]
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}):
		r = lz4.NewReader(bytes.NewReader(trailer))
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var d *zstd.Decoder
		d, err = zstd.NewReader(bytes.NewReader(trailer), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxKernel))
		if err == nil {
			defer d.Close()
			r = d
		}
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		var g *gzip.Reader
		if g, err = gzip.NewReader(bytes.NewReader(p)); err == nil {
			g.Multistream(false) // whatever follows is not part of it
			r = g
		}
	case bytes.HasPrefix(p, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		var x *xz.Reader
		if x, err = xz.NewReader(bytes.NewReader(trailer), maxKernel); err == nil {
			x.Multistream(false)
			r = x
		}
	default:
		err = errors.New("its compression is unknown")
	}
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	n, err := io.Copy(out, io.LimitReader(r, maxKernel+1))
	switch {
	case err != nil:
		return nil, err
	case n > maxKernel:
		return nil, fmt.Errorf("it is larger than %d bytes", maxKernel)
	case n != int64(size):
		return nil, fmt.Errorf("it has %d bytes, its trailer says %d", n, size)
	}
	return out.Bytes(), nil
}

func checkELF(kernel []byte) error {
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return refuse("what it holds is not an ELF file: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return refuse("it is a %s %s kernel", f.Class, f.Machine)
	}
	return nil
}
