package block

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/fault"
)

// Sizes of what PunchZeros looks at.
const (
	zeroRun  = 64 << 10 // at least so many zeros become a hole: each hole costs the file an extent
	zeroRead = 1 << 20
)

// PunchZeros makes holes of what the file at path holds of zeros, where an aligned 64 KiB are nothing else. It reads
// the same before, meanwhile and after.
func (Disks) PunchZeros(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fault.System(err, "make sparse", path)
	}
	info, err := f.Stat()
	if err == nil {
		err = eachData(f, info.Size(), func(from, to int64) error { return punchZeros(ctx, f, from, to) })
	}
	return fault.System(errors.Join(err, f.Close()), "make sparse", path)
}

// punchZeros does it for one extent of data.
func punchZeros(ctx context.Context, f *os.File, from, to int64) error {
	buf, zeros := make([]byte, zeroRead), make([]byte, zeroRun)
	hole := from - from%zeroRun // where the zeros before at begin
	at := hole
	punch := func() error {
		if at == hole {
			return nil
		}
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, hole, at-hole)
	}
	for at < to {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for part := buf[:n]; len(part) > 0; {
			run := part[:min(zeroRun, len(part))]
			part = part[len(run):]
			if bytes.Equal(run, zeros[:len(run)]) {
				at += int64(len(run))
				continue
			}
			if err := punch(); err != nil {
				return err
			}
			at += int64(len(run))
			hole = at
		}
		if n < len(buf) {
			break // the file's end
		}
	}
	return punch()
}
