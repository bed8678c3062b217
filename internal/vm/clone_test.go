package vm_test

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"banger/internal/vm"
)

// TestACloneSharesNothing fills in every field there is, so that a new one that Clone forgets is found.
func TestACloneSharesNothing(t *testing.T) {
	var v vm.VM
	fill(t, reflect.ValueOf(&v).Elem())
	c := v.Clone()
	if !reflect.DeepEqual(v, c) {
		t.Errorf("the clone differs: %+v, %+v", v, c)
	}
	apart(t, "VM", reflect.ValueOf(v), reflect.ValueOf(c))
}

func whole(t reflect.Type) bool {
	return t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[netip.Addr]() || t == reflect.TypeFor[netip.Prefix]()
}

func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch {
	case whole(v.Type()):
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem())
	}
}

func apart(t *testing.T, name string, a, b reflect.Value) {
	t.Helper()
	switch {
	case whole(a.Type()):
	case a.Kind() == reflect.Struct:
		for i := range a.NumField() {
			apart(t, name+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	case a.Kind() == reflect.Pointer || a.Kind() == reflect.Slice || a.Kind() == reflect.Map:
		if a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", name)
		}
	}
}
