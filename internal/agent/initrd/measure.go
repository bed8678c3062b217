//go:build measured

package initrd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/agentproto"
)

// How a disk is read: all of its beginning, and then one step in so many, for an emulated processor takes minutes for
// gigabytes.
const (
	measureStep  = 1 << 20   // bytes at once
	measureWhole = 256 << 20 // bytes
	measureEach  = 16        // steps
)

// measure tells on the console what is on each disk: how large it is, and a digest over the steps that are read and hold
// something, each with its place.
func (b *Boot) measure(ctx context.Context, mounts ...agentproto.Mount) error {
	for _, m := range mounts {
		if err := awaitFile(ctx, m.Device); err != nil {
			return err
		}
		size, sum, err := digest(m.Device)
		if err != nil {
			return fmt.Errorf("measure %s: %w", m.Device, err)
		}
		b.Log.Error("measured", "device", m.Device, "size", size, "digest", sum)
	}
	return nil
}

func digest(device string) (size int64, sum string, err error) {
	// Past the page cache, which reads in steps of 128 KiB: each is an exit to the hypervisor.
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, measureStep, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE) // aligned
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = unix.Munmap(buf) }()
	h, zeroes := sha256.New(), make([]byte, measureStep)
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, "", err
	}
	for at := int64(0); at < size; at += measureStep {
		if at >= measureWhole && at/measureStep%measureEach != 0 {
			continue
		}
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return size, "", err
		}
		if !bytes.Equal(buf[:n], zeroes[:n]) {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(at)))
			h.Write(buf[:n])
		}
	}
	return size, hex.EncodeToString(h.Sum(nil)), nil
}
