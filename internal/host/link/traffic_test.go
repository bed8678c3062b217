package link

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/vm"
)

func TestParseTraffic(t *testing.T) {
	got, err := parseTraffic(strings.NewReader(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000      10    0    0    0     0          0         0     2000      20    0    0    0     0       0          0
btab12-d2e2ac20:9007199254740993       3    0    4    0     0          0         0      15       1    0    0    0     0       0          0
`))
	want := map[string]vm.Traffic{
		"lo":              {RxBytes: 1000, RxPackets: 10, TxBytes: 2000, TxPackets: 20},
		"btab12-d2e2ac20": {RxBytes: 9007199254740993, RxPackets: 3, TxBytes: 15, TxPackets: 1},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []string{"lo: 1 2 3\n", "lo: x 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"} {
		if _, err := parseTraffic(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestTrafficHere reads the file as a kernel writes it.
func TestTrafficHere(t *testing.T) {
	all, err := Traffic()
	if _, ok := all["lo"]; !ok || err != nil {
		t.Errorf("%v, %v", all, err)
	}
}
