package boot_test

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"banger/internal/boot"
	"banger/internal/fault"
)

// kernel is the smallest ELF file that passes for a kernel, followed by size bytes of what looks like
// calls: xz's x86 filter rewrites those, so a reader that does not know the filter would differ.
func kernel(machine elf.Machine, size int) []byte {
	var b bytes.Buffer
	h := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64, Phentsize: 56, Shentsize: 64,
	}
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		panic(err) // a buffer takes everything
	}
	return append(b.Bytes(), bytes.Repeat([]byte{0xe8, 0x10, 0x02, 0, 0, 0x90, 0x90, 0x90}, size/8)...)
}

// bzImage wraps a payload in what a boot loader would need of it.
func bzImage(payload []byte) []byte {
	const setupSects, gap = 2, 100 // the payload does not start the protected-mode code
	img := make([]byte, (setupSects+1)*512+gap, (setupSects+1)*512+gap+len(payload)+16)
	img[0x1f1] = setupSects
	copy(img[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(img[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(img[0x248:], gap)
	binary.LittleEndian.PutUint32(img[0x24c:], uint32(len(payload)))
	return append(append(img, payload...), "whatever follows"...)
}

// sized appends the unpacked size, as the kernel's build does for every format but gzip.
func sized(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(size))
}

func pack(t testing.TB, content []byte, writer func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := writer(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packLZ4(t testing.TB, content []byte) []byte {
	t.Helper()
	return sized(pack(t, content, func(w io.Writer) (io.WriteCloser, error) {
		z := lz4.NewWriter(w)
		return z, z.Apply(lz4.LegacyOption(true))
	}), len(content))
}

func packZstd(t testing.TB, content []byte) []byte {
	t.Helper()
	return sized(pack(t, content, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }), len(content))
}

func packGzip(t testing.TB, content []byte) []byte {
	t.Helper()
	return pack(t, content, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
}

// packedXZ is kernel(EM_X86_64, 4096) as the kernel's build packs it:
// xz --check=crc32 --x86 --lzma2=dict=32MiB.
func packedXZ(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/kernel.xz")
	if err != nil {
		t.Fatal(err)
	}
	return sized(b, len(kernel(elf.EM_X86_64, 4096)))
}

func TestVmlinux(t *testing.T) {
	small := kernel(elf.EM_X86_64, 4096)
	large := kernel(elf.EM_X86_64, 9<<20) // lz4's legacy frames hold 8 MiB each
	for name, c := range map[string]struct{ img, want []byte }{
		"elf":        {small, small},
		"lz4":        {bzImage(packLZ4(t, small)), small},
		"lz4 blocks": {bzImage(packLZ4(t, large)), large},
		"zstd":       {bzImage(packZstd(t, large)), large},
		"gzip":       {bzImage(packGzip(t, small)), small},
		"xz x86":     {bzImage(packedXZ(t)), small},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := boot.Vmlinux(c.img)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, c.want) {
				t.Errorf("got %d other bytes than the %d that were packed", len(got), len(c.want))
			}
		})
	}
}

func TestVmlinuxRefuses(t *testing.T) {
	good := bzImage(packGzip(t, kernel(elf.EM_X86_64, 4096)))
	with := func(at int, b ...byte) []byte {
		img := slices.Clone(good)
		copy(img[at:], b)
		return img
	}
	packed := packZstd(t, kernel(elf.EM_X86_64, 4096))
	wrongSize := slices.Clone(packed)
	wrongSize[len(wrongSize)-4]++
	for name, c := range map[string]struct {
		img  []byte
		want string
	}{
		"nothing":          {nil, "it is neither an ELF file nor an x86 boot image"},
		"text":             {bytes.Repeat([]byte("text "), 1000), "it is neither an ELF file nor an x86 boot image"},
		"old protocol":     {with(0x206, 0x07, 0x02), "its boot protocol 0x207 is older than 0x208"},
		"payload outside":  {with(0x24c, 0, 0, 0, 0xff), "does not fit in its"},
		"payload far away": {with(0x248, 0xff, 0xff, 0xff, 0xff), "does not fit in its"},
		"empty payload":    {with(0x24c, 0, 0, 0, 0), "its payload of 0 bytes"},
		"unknown packer":   {bzImage(sized([]byte("BZh91AY&SY"), 4096)), "its compression is unknown"},
		"cut short":        {bzImage(packed[:len(packed)/2]), "its payload cannot be unpacked"},
		"wrong size":       {bzImage(wrongSize), "its trailer says"},
		"absurd size":      {bzImage(sized(packed[:len(packed)-4], 1<<32-1)), "it claims 4294967295 bytes"},
		"no ELF inside":    {bzImage(packGzip(t, []byte("hello, this is no kernel"))), "what it holds is not an ELF file"},
		"another machine":  {bzImage(packGzip(t, kernel(elf.EM_AARCH64, 64))), "it is a ELFCLASS64 EM_AARCH64 kernel"},
		"a broken ELF":     {[]byte("\x7fELF but nothing more"), "what it holds is not an ELF file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := boot.Vmlinux(c.img)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want it to say %q", err, c.want)
			}
			if f := fault.From(err); f.Code != fault.Incompatible || f.Hint == "" {
				t.Errorf("got code %s and hint %q", f.Code, f.Hint)
			}
		})
	}
}

func FuzzVmlinux(f *testing.F) {
	small := kernel(elf.EM_X86_64, 256)
	for _, img := range [][]byte{small, bzImage(packLZ4(f, small)), bzImage(packZstd(f, small)), bzImage(packGzip(f, small)), bzImage(packedXZ(f))} {
		f.Add(img)
	}
	f.Fuzz(func(t *testing.T, img []byte) {
		out, err := boot.Vmlinux(img)
		if err == nil && !bytes.HasPrefix(out, []byte(elf.ELFMAG)) {
			t.Error("accepted what is no ELF file")
		}
		if err != nil && !fault.Is(err, fault.Incompatible) {
			t.Errorf("got %v", err)
		}
	})
}
