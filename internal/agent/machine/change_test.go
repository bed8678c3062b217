package machine

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountedAt(t *testing.T) {
	const table = `22 1 0:20 / /proc rw - proc proc rw
23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,noinit_itable
24 23 254:16 /sub /srv rw - ext4 /dev/vdb rw
25 23 254:32 / /mnt rw - xfs /dev/vdc rw
junk
26 23 254:16 / /my\040root\134 rw shared:2 - ext4 /dev/vdb rw
27 23 254:16 / /again rw - ext4 /dev/vdb rw
`
	for _, c := range []struct {
		minor      uint32
		at, failed string
	}{
		{0, "/", ""},
		{16, `/my root\`, ""}, // not the subdirectory, and the first of two
		{32, "", "no ext4 of it is mounted"},
		{48, "", "no ext4 of it is mounted"},
	} {
		at, err := mountedAt(strings.NewReader(table), unix.Mkdev(254, c.minor))
		if at != c.at || (err == nil) != (c.failed == "") || err != nil && err.Error() != c.failed {
			t.Errorf("254:%d: got %q, %v; want %q, %q", c.minor, at, err, c.at, c.failed)
		}
	}
}
