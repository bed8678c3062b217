package store_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"banger/internal/fault"
	"banger/internal/store"
	"banger/internal/vm"
)

// TestStoreIsAMap makes random changes to the store and to two maps that say what it should hold.
func TestStoreIsAMap(t *testing.T) {
	s := open(t, t.TempDir())
	rapid.Check(t, func(t *rapid.T) {
		remove := func(t *rapid.T, v vm.VM) {
			if err := s.Commit(t.Context(), vm.Change{VM: v, Remove: true}); err != nil {
				t.Fatal(err)
			}
		}
		left, err := s.VMs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range left {
			remove(t, v)
		}
		m := model{vms: map[vm.ID]vm.VM{}, records: map[string]vm.Record{}}
		told, err := s.LastEvent(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var known []vm.ID // also of VMs that are gone
		some := func(t *rapid.T) vm.VM {
			id := rapid.SampledFrom(append(slices.Clone(known), "000000000000")).Draw(t, "id")
			v, ok := m.vms[id]
			if !ok {
				v = machine("gone")
				v.ID = id
			}
			return v
		}
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				v := machine(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name"))
				v.ID = vm.ID(fmt.Sprintf("%08x0000", len(known)+1))
				got, err := s.Create(t.Context(), v, pick, hold, operation("vm.create"))
				if m.taken(v.Name) {
					if !fault.Is(err, fault.AlreadyExists) {
						t.Fatalf("a taken name: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				known = append(known, v.ID)
				m.vms[v.ID] = got
				m.hold(hold(v))
				m.news = append(m.news, "operation.began ", "vm.created "+v.Name)
			},
			"commit": func(t *rapid.T) {
				v := some(t)
				v.Reason = rapid.String().Draw(t, "reason")
				v.State = rapid.SampledFrom([]vm.State{vm.Running, vm.Stopped}).Draw(t, "state")
				c := vm.Change{VM: v}
				if rapid.Bool().Draw(t, "drop") {
					c.Drop = vm.UntilStop
				}
				if rapid.Bool().Draw(t, "hold") {
					name := rapid.SampledFrom([]string{"tap0", "tap1"}).Draw(t, "record")
					c.Hold = []vm.Record{{VM: v.ID, Kind: vm.RecordTAP, Name: name, Until: vm.UntilStop}}
				}
				err := s.Commit(t.Context(), c)
				if want := m.commit(c); fault.CodeOf(err) != want {
					t.Fatalf("got %v, want %q", err, want)
				}
			},
			"remove": func(t *rapid.T) {
				v := some(t)
				remove(t, v)
				if was, ok := m.vms[v.ID]; ok {
					m.news = append(m.news, "vm.deleted "+was.Name)
				}
				delete(m.vms, v.ID)
				maps.DeleteFunc(m.records, func(_ string, r vm.Record) bool { return r.VM == v.ID })
			},
		})
		all, err := s.VMs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		records, err := s.Records(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sketch(all, records), m.sketch(); got != want {
			t.Fatalf("the store holds\n%swant\n%s", got, want)
		}
		finds(t, s, m)
		page, err := s.Events(t.Context(), told, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var news []string
		for i, e := range page.Events {
			if e.ID != told+int64(i)+1 {
				t.Fatalf("the ids have a hole: %+v", page.Events)
			}
			news = append(news, string(e.Kind)+" "+e.Name)
		}
		if !slices.Equal(news, m.news) {
			t.Fatalf("told were\n%q\nwant\n%q", news, m.news)
		}
	})
}

// finds holds that VMs are found by name and address exactly as the model has them.
func finds(t *rapid.T, s *store.Store, m model) {
	running, leased := map[string]vm.Lease{}, map[netip.Addr]string{}
	for _, v := range m.vms {
		if v.State == vm.Running {
			running[v.Name] = v.Lease
		}
		leased[v.Lease.Address.Addr()] = v.Name
	}
	for _, name := range []string{"", "a", "b", "c", "d"} {
		want, runs := running[name]
		if got, ok, err := s.Named(t.Context(), name); err != nil || ok != runs || ok && got != want {
			t.Fatalf("by its name %q: %v, %v, %v, want %v, %v", name, got, ok, err, want, runs)
		}
	}
	for a := netip.MustParseAddr("10.9.8.1"); a != netip.MustParseAddr("10.9.8.7"); a = a.Next() {
		want := leased[a]
		if got, ok, err := s.At(t.Context(), a); err != nil || ok != (want != "") || got.Name != want {
			t.Fatalf("at %s: %q, %v, %v, want %q", a, got.Name, ok, err, want)
		}
	}
}

// model is what the store should hold.
type model struct {
	vms     map[vm.ID]vm.VM
	records map[string]vm.Record // by kind and name
	news    []string
}

func (m model) taken(name string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(m.vms)), func(v vm.VM) bool { return v.Name == name })
}

func key(r vm.Record) string { return string(r.Kind) + " " + r.Name }

func (m model) hold(records []vm.Record) {
	for _, r := range records {
		m.records[key(r)] = r
	}
}

// commit applies a change, or says why it must be refused.
func (m *model) commit(c vm.Change) fault.Code {
	if _, ok := m.vms[c.VM.ID]; !ok {
		return fault.NotFound
	}
	for _, r := range c.Hold {
		if other, ok := m.records[key(r)]; ok && other.VM != r.VM {
			return fault.InUse
		}
	}
	switch was := m.vms[c.VM.ID]; {
	case was.State != c.VM.State:
		m.news = append(m.news, "vm."+string(c.VM.State)+" "+c.VM.Name)
	case was.State == vm.Running && c.VM.Reason != "" && was.Reason != c.VM.Reason:
		m.news = append(m.news, "vm.ailing "+c.VM.Name)
	}
	m.vms[c.VM.ID] = c.VM
	maps.DeleteFunc(m.records, func(_ string, r vm.Record) bool { return r.VM == c.VM.ID && r.Until == c.Drop })
	m.hold(c.Hold)
	return ""
}

func (m model) sketch() string {
	return sketch(slices.Collect(maps.Values(m.vms)), slices.Collect(maps.Values(m.records)))
}

// sketch prints what is held, in an order of its own.
func sketch(vms []vm.VM, records []vm.Record) string {
	var lines []string
	for _, v := range vms {
		lines = append(lines, fmt.Sprintf("%s %s %s %q\n", v.ID, v.Name, v.Lease.Address, strings.ToValidUTF8(v.Reason, "�")))
	}
	for _, r := range records {
		lines = append(lines, fmt.Sprintf("%s holds %s %s until %s\n", r.VM, r.Kind, r.Name, r.Until))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
