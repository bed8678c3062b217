package dm

import (
	"fmt"
	"os"

	"banger/internal/vm"
)

// layout is how an overlay lies on its image and in its file. All in sectors.
type layout struct {
	image int64 // covered by the snapshot
	store int64 // the snapshot's, at the file's beginning
	rest  int64 // behind both
}

// extent lays an overlay out. It depends on the image's size and on the disk's alone, so a disk that has grown has what
// it had where it was.
func extent(o vm.Overlay) (layout, error) {
	info, err := os.Stat(o.Origin)
	if err != nil {
		return layout{}, err
	}
	image := info.Size() / sector
	if !info.Mode().IsRegular() || image == 0 {
		return layout{}, fmt.Errorf("%s is no image", o.Origin)
	}
	return layout{image: image, store: storeFor(image), rest: max(0, o.Size/sector-image)}, nil
}

// file is how many bytes the file has.
func (l layout) file() int64 { return (l.store + l.rest) * sector }

// table is the device's, given the numbers of the devices that it is made of. The store is persistent, and is one that
// tells an overflow from damage.
func (l layout) table(origin, cow string) []target {
	t := []target{{0, l.image, "snapshot", fmt.Sprintf("%s %s PO %d", origin, cow, chunk)}}
	if l.rest > 0 {
		t = append(t, target{l.image, l.rest, "linear", fmt.Sprintf("%s %d", cow, l.store)})
	}
	return t
}

// storeFor is how large a store is that holds every chunk of so many sectors: a header; for each chunk 16 bytes in an
// area of a chunk's size before those that it tells of, and one area more, which the kernel wipes when one is full. It
// is rounded up to a MiB.
func storeFor(sectors int64) int64 {
	const perArea, mib = chunk * sector / 16, 1 << 20 / sector
	chunks := (sectors + chunk - 1) / chunk
	areas := (chunks+perArea-1)/perArea + 1
	return ((1+chunks+areas)*chunk + mib - 1) / mib * mib
}
