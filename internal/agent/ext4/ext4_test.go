package ext4

import (
	"encoding/binary"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name       string
		blocks     uint64
		log        uint32
		device     int64
		have, room uint64
	}{
		{"4 KiB blocks with room", 153600, 2, 2 << 30, 153600, 524288},
		{"1 KiB blocks, full", 65536, 0, 64 << 20, 65536, 65536},
		{"a device that ends within a block", 100, 2, 100*4096 + 4095, 100, 100},
		{"more than 32 bits of blocks", 1<<32 + 5, 2, 1 << 50, 1<<32 + 5, 1 << 38},
		{"a block size that is no size", 1, 1 << 31, 1 << 40, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var super [1024]byte
			binary.LittleEndian.PutUint32(super[0x4:], uint32(tt.blocks))
			binary.LittleEndian.PutUint32(super[0x150:], uint32(tt.blocks>>32))
			binary.LittleEndian.PutUint32(super[0x18:], tt.log)
			have, room := parse(super, tt.device)
			if have != tt.have || room != tt.room {
				t.Errorf("got %d of %d, want %d of %d", have, room, tt.have, tt.room)
			}
		})
	}
}
