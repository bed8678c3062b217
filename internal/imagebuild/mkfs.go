package imagebuild

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"banger/internal/image"
	"banger/internal/vm"
)

// growable is the size in bytes up to which a file system can be grown without moving its metadata:
// mke2fs reserves room for the group descriptors, half a megabyte of them.
const growable = 1 * vm.TiB

// mkfs lays a tree into a sparse ext4 image whose identity follows from the image's. Growth adds groups
// of 128 MiB with as many inodes as the first group has, so a file system that begins with half a group
// needs them twice as dense.
func (b *Builder) mkfs(ctx context.Context, m image.Manifest, label, tree, path string, least, bytesPerInode int64) (image.Disk, error) {
	size, err := room(tree, least)
	if err != nil {
		return image.Disk{}, err
	}
	uuid := derivedUUID(m.ID, label)
	const block = 4 * vm.KiB
	argv := []string{
		"mke2fs", "-q", "-t", "ext4", "-b", strconv.FormatInt(block, 10), "-i", strconv.FormatInt(bytesPerInode, 10), "-m", "1", "-L", label, "-U", uuid,
		// Inode tables are zeroed now, while they are holes: left to the guest's kernel they would be
		// written out after the first mount. A small journal is plenty for a disk of this kind.
		"-E", fmt.Sprintf("hash_seed=%s,resize=%d,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", uuid, growable/block),
		"-J", "size=16", "-d", tree, path, strconv.FormatInt(size/vm.KiB, 10) + "k",
	}
	// The same moment everywhere, so that equal trees give equal images.
	env := []string{"E2FSPROGS_FAKE_TIME=" + strconv.FormatInt(m.Created.Truncate(24*60*60*1e9).Unix(), 10)}
	if err := b.Run(ctx, argv, env, func(string) {}); err != nil {
		return image.Disk{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return image.Disk{}, err
	}
	d := image.Disk{FSType: "ext4", UUID: uuid, Size: st.Size()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		d.Allocated = sys.Blocks * 512
	}
	return d, nil
}

// room is how large a file system must be for a tree: half again what the files take, at least least.
func room(tree string, least int64) (int64, error) {
	var used int64
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			used += info.Size() + 4*vm.KiB
		}
		return err
	})
	size := max(used+used/2, least)
	return (size + vm.MiB - 1) / vm.MiB * vm.MiB, err
}

func derivedUUID(id, label string) string {
	sum := sha256.Sum256([]byte(id + " " + label))
	sum[6] = sum[6]&0x0f | 0x80 // version 8: made by a rule of our own
	sum[8] = sum[8]&0x3f | 0x80
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
