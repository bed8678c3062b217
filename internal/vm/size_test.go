package vm_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"banger/internal/fault"
	"banger/internal/vm"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"512M": 512 * vm.MiB, "512m": 512 * vm.MiB, "512MB": 512 * vm.MiB, "512MiB": 512 * vm.MiB, " 512 MiB ": 512 * vm.MiB,
		"2G": 2 * vm.GiB, "1.5GiB": 1536 * vm.MiB, "4096B": 4096, "8K": 8 * vm.KiB, "1T": vm.TiB, ".5G": 512 * vm.MiB,
	} {
		if got, err := vm.ParseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"512": "it has no unit", "": "it has no unit", "1.5": "it has no unit",
		"G": "it is not a number", "1.2.3G": "it is not a number",
		"5 gallons": "the unit is unknown", "-1G": "the unit is unknown", "1e9B": "the unit is unknown", "0x10M": "the unit is unknown",
		"inf G": "the unit is unknown", "512M\n512M": "the unit is unknown",
		"0G": "it is nothing", "0.2B": "it is nothing",
		"2000T": "it is absurdly large", "99999999999999999999999999G": "it is absurdly large",
	} {
		_, err := vm.ParseSize(text)
		if !fault.Is(err, fault.Invalid) || fault.From(err).Msg != want || fault.From(err).Hint == "" {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", vm.KiB: "1 KiB", 1536 * vm.MiB: "1.5 GiB", 512 * vm.MiB: "512 MiB", 16 * vm.TiB: "16 TiB",
	} {
		if got := vm.FormatSize(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 1<<50).Draw(t, "size")
		back, err := vm.ParseSize(vm.FormatSize(n))
		if err != nil || float64(back) < float64(n)*0.95 || float64(back) > float64(n)*1.05 {
			t.Fatalf("%d is written %q and read %d, %v", n, vm.FormatSize(n), back, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5GiB")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := vm.ParseSize(text)
		if err == nil && (n < 1 || n > 1<<50) {
			t.Errorf("%q: %d", text, n)
		}
	})
}

func TestCheckSpec(t *testing.T) {
	const root, work = 2 * vm.GiB, 32 * vm.MiB
	good := vm.Spec{VCPU: 2, Memory: vm.GiB, RootDisk: root, WorkDisk: vm.GiB}
	for _, c := range []struct {
		change func(*vm.Spec)
		want   string
	}{
		{func(*vm.Spec) {}, ""},
		{func(s *vm.Spec) { s.VCPU, s.Memory, s.WorkDisk = 32, vm.TiB, vm.MaxDisk }, ""},
		{func(s *vm.Spec) { s.VCPU = 0 }, `size VM's "vcpu": 0 is out of range`},
		{func(s *vm.Spec) { s.VCPU = -1 }, `size VM's "vcpu": -1 is out of range`},
		{func(s *vm.Spec) { s.VCPU = 33 }, `size VM's "vcpu": 33 is out of range`},
		{func(s *vm.Spec) { s.Memory = 0 }, `size VM's "memory": 0 B is out of range`},
		{func(s *vm.Spec) { s.Memory = 63 * vm.MiB }, `size VM's "memory": 63 MiB is out of range`},
		{func(s *vm.Spec) { s.Memory = 2 * vm.TiB }, `size VM's "memory": 2 TiB is out of range`},
		{func(s *vm.Spec) { s.Memory++ }, `size VM's "memory": it is not a whole number of MiB`},
		{func(s *vm.Spec) { s.RootDisk = vm.GiB }, `size VM's "root-disk": 1 GiB is smaller than its image's root file system, 2 GiB`},
		{func(s *vm.Spec) { s.RootDisk = 17 * vm.TiB }, `size VM's "root-disk": 17 TiB is out of range`},
		{func(s *vm.Spec) { s.WorkDisk = 31 * vm.MiB }, `size VM's "work-disk": 31 MiB is smaller than its image's work seed, 32 MiB`},
		{func(s *vm.Spec) { s.WorkDisk = 17 * vm.TiB }, `size VM's "work-disk": 17 TiB is out of range`},
		{func(s *vm.Spec) { s.WorkDisk++ }, `size VM's "disks": a size is not a multiple of 4 KiB`},
	} {
		s := good
		c.change(&s)
		err := s.Check(root, work)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want || err != nil && (!fault.Is(err, fault.Invalid) || fault.From(err).Hint == "") {
			t.Errorf("%s: got %q, want %q", fmt.Sprint(s), got, c.want)
		}
	}
}
